"""Pulls from a durable consumer and hands each entry to a handler: as many at once as `concurrency` allows, each member of a batch counted.

Pull requests are short and carry a heartbeat. After a reconnect at once, and when a pull falls silent, a new one is sent, so that no restart of
the broker leaves the consumer deaf; the old one, should the broker still have it, dies with its inbox, so that there are never two.
A handler ends in exactly one of `ack`, `retry` or an exception (which is logged, and retried after a pause): nothing is ever let go because
of a fault. A broker that is killed forgets what it had just given out, and gives it out again as if for the first time. What is in hand
already is not taken up beside itself; and since another replica may have had it, or one that is gone, what was waiting when the connection
began comes as `repeated`. A pull takes no more octets than this consumer's share of what the broker may have on its way to us (window.py).
Sources: JetStream pull API (ADR-13), docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Final

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from postern_core.batch import MOST_MEMBERS
from postern_core.bus.connection import Bus, header
from postern_core.bus.delivered import HAND_BACK_S, Delivered
from postern_core.bus.publishing import NoRoomError
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_EXPIRES_S: Final = 5.0
_HEARTBEAT_S: Final = 1.0
_SILENCE_S: Final = 3 * _HEARTBEAT_S
_FAULT_PAUSE_S: Final = 5.0
# where there was no room: that lasts, and a backlog must not keep a handler busy with work that comes to nothing. The last one repeats
_FULL_PAUSES_S: Final = (5.0, 15.0, 60.0)
_STOP_S: Final = 2.0  # for the broker to confirm that it sends nothing more

# entries that a broker can have given out and forgotten: what all replicas have in hand is less. It spares most of a long backlog the look-ups
_MOST_FORGOTTEN: Final = 1000
_FENCE: Final = "fence"  # in place of a pull's number
_OVER_SHARE: Final = "Message Size Exceeds MaxBytes"  # the next entry is larger than what is left of the pull's octets

Handler = Callable[[Delivered], Awaitable[None]]


class Consumer:
    """See the module. `keep_every_s` sends `keep` for a handler that runs long, for at most `keep_for_s`; for each member where it takes
    those of a batch `in_turn`."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        consumer: str,
        handler: Handler,
        *,
        concurrency: int,
        keep_every_s: float | None = None,
        keep_for_s: float = 900.0,
        in_turn: bool = False,
    ) -> None:
        self._bus = bus
        self._api = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self.name = f"{stream}/{consumer}"
        self._handler = handler
        self._concurrency = concurrency
        self._keep_every_s = keep_every_s
        self._keep_for_s = keep_for_s
        self._in_turn = in_turn
        self._in_flight: dict[asyncio.Task[None], Delivered] = {}
        self._in_hand: dict[tuple[str, str], Delivered] = {}  # by entry, the newest of each
        self._members = 0  # of all entries in flight
        # of an entry, lately: a pull asks for entries, and nobody knows their size before
        self._usual_members = float(MOST_MEMBERS)
        self._requested = 0  # entries asked for by the open pull and not yet delivered
        self._brought = False  # whether the open pull has delivered one
        self._next_is_over_share = False
        self._pull = 0  # names the open pull; a status for an older one is void
        self._heard = asyncio.Event()  # of the open pull
        self._heard_at = 0.0
        self._wake = asyncio.Event()
        self._reconnected = False  # since the open pull was sent
        # entries to come that may have been given out before; None until one tells how many wait
        self._doubtful: int | None = None
        self._stopping = False
        bus.window.join(self)  # here, so that none of several that begin together takes the share of those that have not begun

    @property
    def in_flight(self) -> int:
        """Messages in hand, each member of a batch counted."""
        return self._members

    async def run(self, stop: asyncio.Event, drain_s: float) -> None:
        """Pull until `stop`; then finish what is in flight, for at most `drain_s` seconds, and hand back the rest."""
        loop = asyncio.get_running_loop()
        inbox, subscription = await self._open_inbox()
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        keeper = asyncio.create_task(self._keep(self._keep_every_s)) if self._keep_every_s else None
        self._bus.on_reconnect.add(self._renew)
        try:
            while not stop.is_set():
                self._wake.clear()
                silent = self._requested > 0 and loop.time() - self._heard_at > _SILENCE_S
                if self._bus.connected and (silent or self._reconnected):
                    self._reconnected = False
                    self._doubtful = None
                    old = subscription
                    inbox, subscription = await self._open_inbox()
                    await self._stop_receiving(old)  # what it had brought is in hand now, and counts below
                    self._close_pull()
                free = self._concurrency - self._members
                if self._bus.connected and free > 0 and self._requested == 0:
                    await self._request(inbox, max(int(free / self._usual_members), 1))
                try:
                    async with asyncio.timeout(_HEARTBEAT_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            self._bus.on_reconnect.discard(self._renew)
            stopped.cancel()
            await self._fence(inbox)
            self._stopping = True
            # first, so that the open pull does not go on handing us what we hand back
            await self._stop_receiving(subscription)
            try:
                await self._drain(drain_s)
            finally:
                self._bus.window.leave(self)
                if keeper is not None:
                    keeper.cancel()

    def _renew(self) -> None:
        """The connection is a new one: the broker, or that part of it, may have forgotten the open pull, and to whom it gave what."""
        self._reconnected = True
        for delivered in self._in_flight.values():
            delivered.repeated = True  # another replica may have it as well by now
        self._wake.set()

    async def _open_inbox(self) -> tuple[str, Subscription]:
        """Where a pull is answered: `<inbox>.<pull>`."""
        inbox = self._bus.client.new_inbox()
        return inbox, await self._bus.client.listen(f"{inbox}.*", self._receive)

    async def _request(self, inbox: str, batch: int) -> None:
        await self._ask(inbox, batch, expires=int(_EXPIRES_S * 1e9), idle_heartbeat=int(_HEARTBEAT_S * 1e9))

    async def _ask(self, inbox: str, batch: int, **how: int | bool) -> None:
        if not self._next_is_over_share:
            how["max_bytes"] = self._bus.window.share_bytes
        elif self._bus.window.take_turn(self, self._wake.set):
            batch = 1
        else:
            return  # until it is our turn
        self._pull += 1
        self._brought = False
        self._requested = batch
        self._heard.clear()
        self._heard_at = asyncio.get_running_loop().time()
        try:
            await self._bus.client.publish(self._api, json.dumps({"batch": batch, **how}).encode(), reply=f"{inbox}.{self._pull}")
        except (nats.errors.Error, OSError) as error:
            self._requested = 0
            log.debug("bus.pull_failed", consumer=self.name, reason=f"{type(error).__name__}: {error}")

    async def _fence(self, inbox: str) -> None:
        """Returns when the broker is known to have looked at the open pull: it takes requests up beside reading commands, and one that it took up
        behind the end of our subscription would be given a message that nobody hears, until its ack-wait is over."""
        if self._requested == 0 or self._heard.is_set() or not self._bus.connected:
            return
        try:
            async with asyncio.timeout(_STOP_S):
                # behind the pull in the same queue, and answered at once
                await self._bus.client.publish(self._api, b'{"batch":1,"no_wait":true}', reply=f"{inbox}.{_FENCE}")
                await self._heard.wait()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            log.debug("bus.fence_failed", consumer=self.name, reason=f"{type(error).__name__}: {error}")

    def _receive(self, msg: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if not msg.reply.startswith("$JS.ACK."):
            self._status(msg)
            return
        self._heard.set()
        self._brought = True
        if self._requested > 0:
            self._requested -= 1
        delivered = Delivered(self._bus.client, msg)
        if self._doubtful is None:
            self._doubtful = min(delivered.waiting + 1, _MOST_FORGOTTEN)
        if self._doubtful:  # the broker gives out what came first first: all that waited then comes before anything newer
            self._doubtful -= 1
            delivered.repeated = True
        if not self._is_in_hand(delivered):
            self._begin(delivered)
        if self._requested == 0:
            self._end_pull()

    def _is_in_hand(self, delivered: Delivered) -> bool:
        """Whether the broker, which forgot that it gave this out, gave it out once more: whoever has it goes on, for both."""
        mine = self._in_hand.get(delivered.entry)
        # a later try at it is for the handler to judge, and what it has settled is on its way back
        if mine is None or mine.settled or delivered.tries > mine.tries:
            return False
        log.info("bus.given_out_again", consumer=self.name, subject=delivered.subject, tries=delivered.tries)
        mine.given_out_again(delivered)
        return True

    def _begin(self, delivered: Delivered) -> None:
        work = delivered.retry(HAND_BACK_S) if self._stopping else self._handle(delivered)
        task = asyncio.create_task(work, name=f"{self.name}#{delivered.stream_sequence}")
        self._in_flight[task] = delivered
        self._in_hand[delivered.entry] = delivered
        delivered.on_member_ended = self._member_ended
        self._count(delivered)
        task.add_done_callback(self._finished)

    def _count(self, delivered: Delivered) -> None:
        self._members += delivered.members
        self._usual_members += (delivered.members - self._usual_members) / 16

    def _status(self, msg: Msg) -> None:
        status, description, pull = header(msg, "Status"), header(msg, "Description"), msg.subject.rpartition(".")[2]
        if pull in (_FENCE, str(self._pull)):
            self._heard.set()
        if status == "100" or pull != str(self._pull):
            return
        if _OVER_SHARE in description:
            self._end_pull(next_is_over_share=not self._brought)
            return
        if status not in ("404", "408"):
            log.warning("bus.pull_ended", consumer=self.name, status=status, reason=description)
        if status == "503" or (status == "409" and "Batch Completed" not in description):
            return  # wait for the silence to pass before asking again: do not spin
        self._end_pull()

    def _end_pull(self, *, next_is_over_share: bool = False) -> None:
        self._close_pull(next_is_over_share=next_is_over_share)
        self._wake.set()

    def _close_pull(self, *, next_is_over_share: bool = False) -> None:
        self._requested = 0
        self._next_is_over_share = next_is_over_share
        self._bus.window.end_turn(self)

    def _member_ended(self) -> None:
        self._members -= 1
        if self._requested == 0:
            self._wake.set()

    def _finished(self, task: asyncio.Task[None]) -> None:
        delivered = self._in_flight.pop(task)
        self._members -= delivered.open_members
        if self._in_hand.get(delivered.entry) is delivered:
            del self._in_hand[delivered.entry]
        if self._requested == 0:
            self._wake.set()

    async def _handle(self, delivered: Delivered) -> None:
        try:
            await self._handler(delivered)
        except asyncio.CancelledError:
            # the drain is over: another replica need not wait for the end of the ack-wait
            if not delivered.settled:
                await delivered.retry(HAND_BACK_S)
            raise
        except TransientError as error:
            log.warning("bus.handler_postponed", subject=delivered.subject, tries=delivered.tries, reason=error.reason)
            full = isinstance(error, NoRoomError)
            await delivered.retry(_FULL_PAUSES_S[min(delivered.tries, len(_FULL_PAUSES_S)) - 1] if full else _FAULT_PAUSE_S)
        except Exception:  # the one handler of a task: the message goes back, the fault is logged, nothing is lost
            log.exception("bus.handler_failed", subject=delivered.subject, tries=delivered.tries)
            await delivered.retry(_FAULT_PAUSE_S)

    async def _keep(self, every_s: float) -> None:
        """Restart the clocks of what is in hand: one task for all of it, since most messages are gone before theirs is due."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every_s / 4)
            now = loop.time()
            for delivered in tuple(self._in_flight.values()):
                keep_for_s = self._keep_for_s * (delivered.members if self._in_turn else 1)
                if not delivered.settled and delivered.kept_at + every_s <= now <= delivered.taken_at + keep_for_s:
                    delivered.kept_at = now
                    await delivered.keep()

    async def _stop_receiving(self, subscription: Subscription) -> None:
        """The broker sends nothing more, and what it had sent is handed back."""
        if self._bus.connected:
            try:
                async with asyncio.timeout(_STOP_S):
                    await subscription.drain()  # type: ignore[no-untyped-call]
                return
            except (nats.errors.Error, TimeoutError, OSError) as error:
                log.debug("bus.unsubscribe_failed", consumer=self.name, reason=f"{type(error).__name__}: {error}")
        # or the client would subscribe to it anew with each reconnect; it has no public way to forget one that it could not drain
        self._bus.client._remove_sub(subscription._id)  # noqa: SLF001
        subscription._stop_processing()  # noqa: SLF001
        if self._bus.connected:
            # a reconnect meanwhile may have subscribed to it once more: mail that came there would be in nobody's hands until its ack-wait
            await self._bus.client._send_unsubscribe(subscription._id)  # noqa: SLF001

    async def _drain(self, drain_s: float) -> None:
        if not self._in_flight:
            return
        _, pending = await asyncio.wait(self._in_flight, timeout=drain_s)
        for task in pending:
            log.warning("bus.handler_interrupted", consumer=self.name, task=task.get_name())
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=1)
