"""One entry of a work queue in a handler's hands, and what the handler may say about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import nats.errors
import structlog
from nats.aio.msg import Msg

from postern_core.batch import members_in
from postern_core.bus.client import Client

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_ACK_TIMEOUT_S: Final = 5.0
HAND_BACK_S: Final = 0.001  # a pause of none at all would be sent as a bare nak, which spins


class Delivered:
    """See the module. `members` messages are in it: more than one in a batch."""

    __slots__ = (
        "_ack_to",
        "_client",
        "data",
        "entry",
        "kept_at",
        "members",
        "on_member_ended",
        "open_members",
        "repeated",
        "settled",
        "stream_sequence",
        "subject",
        "taken_at",
        "tries",
        "waiting",
    )

    def __init__(self, client: Client, msg: Msg) -> None:
        # $JS.ACK.<stream>.<consumer>.<tries>.<stream seq>.<consumer seq>.<timestamp>.<pending>, or with domain and account in front
        tokens = msg.reply.split(".")
        base = 4 if len(tokens) < 12 else 6
        self._client = client
        self._ack_to = msg.reply
        self.subject = msg.subject
        self.data = msg.data
        self.members = self.open_members = members_in(msg.subject)
        self.on_member_ended: Callable[[], None] | None = None
        self.tries = int(tokens[base])  # 1 at first; more after a crash, a time-out or `retry`
        # whether somebody may have had it in hand before: so it is too when the broker may have forgotten that (`Consumer`)
        self.repeated = self.tries > 1
        self.waiting = int(tokens[base + 4])  # entries behind it that nobody was given yet
        self.stream_sequence = int(tokens[base + 1])
        # which message it is, with the time when the stream took it: the number alone could be that of another in a stream made anew
        self.entry = (tokens[base + 1], tokens[base + 3])
        self.settled = False
        self.taken_at = self.kept_at = asyncio.get_running_loop().time()  # seconds

    def member_ended(self) -> None:
        """One of several needs no more work: another message may be taken in its place while the rest goes on."""
        if self.open_members > 1:  # the last one ends with the entry
            self.open_members -= 1
            if self.on_member_ended is not None:
                self.on_member_ended()

    def given_out_again(self, other: Delivered) -> None:
        """The broker forgot that it had given this out, and did so once more: what it is told from now on answers that."""
        self._ack_to = other._ack_to
        self.kept_at = other.taken_at

    async def ack(self) -> None:
        """Let go: only after the output has its own acknowledgement. Waits until the broker confirms.

        When the confirmation does not come the message may be delivered again, which is harmless: the output is recognised.
        """
        self.settled = True
        try:
            await self._client.request(self._ack_to, timeout=_ACK_TIMEOUT_S)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            log.warning("bus.ack_unconfirmed", subject=self.subject, reason=f"{type(error).__name__}: {error}")

    async def ack_unconfirmed(self) -> None:
        """Let go without waiting for a word about it: for what is harmless to do once more, and so much that each word counts."""
        self.settled = True
        try:
            await self._client.publish(self._ack_to, b"+ACK")
        except (nats.errors.Error, OSError) as error:
            log.debug("bus.ack_failed", subject=self.subject, reason=f"{type(error).__name__}: {error}")

    async def retry(self, delay_s: float) -> None:
        """Hand back; it is delivered again after `delay_s` seconds."""
        self.settled = True
        try:
            await self._client.publish(self._ack_to, b'-NAK {"delay": %d}' % int(max(delay_s, 0.001) * 1e9))
        except (nats.errors.Error, OSError) as error:
            log.warning("bus.nak_failed", subject=self.subject, reason=f"{type(error).__name__}: {error}")

    async def keep(self) -> None:
        """Tell the broker that work goes on: restarts the ack-wait clock once."""
        try:
            await self._client.publish(self._ack_to, b"+WPI")
        except (nats.errors.Error, OSError) as error:
            log.warning("bus.keep_failed", subject=self.subject, reason=f"{type(error).__name__}: {error}")
