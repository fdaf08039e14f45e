"""The SMTP client: one session with one next hop, as many transactions as one likes, one after another.

    client = await SmtpClient.connect(next_hop, options)        ConnectionFailed: try another host, or later
    outcomes = await client.send(transaction)                   ConnectionLost: what is known, and who is in doubt
    await client.quit()

After `send`, the session is either ready for the next transaction (`usable`) or closed; cancelled, it is closed.
Written for a relay that sends much: one write for MAIL, RCPT and DATA, one for a message of usual size, no copy line by line.
Standards and known gaps: client_opening.py, client_demands.py, client_dialogue.py, client_data.py, client_seven_bit.py, client_wire.py, a file a step.
"""

from __future__ import annotations

import asyncio

import structlog

from postern_core.envelope import BodyType
from postern_core.policy import NextHop
from postern_smtp.client_data import WireMessage, in_lines, to_chunk, to_wire
from postern_smtp.client_demands import lack
from postern_smtp.client_dialogue import Dialogue
from postern_smtp.client_opening import Session, open_session, say_quit
from postern_smtp.client_seven_bit import to_seven_bit, to_text
from postern_smtp.client_types import (
    ClientOptions,
    ConnectionFailed,
    ConnectionLost,
    RecipientOutcome,
    ServerReply,
    Transaction,
)

__all__ = [
    "ClientOptions",
    "ConnectionFailed",
    "ConnectionLost",
    "RecipientOutcome",
    "ServerReply",
    "SmtpClient",
    "Transaction",
]

_log = structlog.get_logger()


class SmtpClient:
    """An open session. One task uses it at a time. Made by `connect`."""

    def __init__(self, next_hop: NextHop, options: ClientOptions, session: Session) -> None:
        self.next_hop = next_hop
        self.messages_sent = 0  # transactions begun
        self._options = options
        self._session = session
        self._in_step = True

    @classmethod
    async def connect(cls, next_hop: NextHop, options: ClientOptions) -> SmtpClient:
        """A session with `next_hop`: greeted, secured and authenticated as `options` say. Raises ConnectionFailed."""
        return cls(next_hop, options, await open_session(next_hop, options))

    @property
    def usable(self) -> bool:
        """Whether `send` may be called again: the connection stands, and the peer said nothing unasked (such as 421)."""
        return self._in_step and self._session.link.is_idle

    @property
    def reply_timeout_s(self) -> float:
        """For how long a reply is waited for."""
        return self._options.command_timeout_s

    @property
    def tls_version(self) -> str:
        """As "TLSv1.3"; "" without TLS."""
        return self._session.tls_version

    def lack(self, transaction: Transaction) -> ServerReply | None:
        """What this session is short of for all of `transaction` (`send` says it to those concerned); None when nothing."""
        return lack(transaction, self._session.extensions, verified=self._session.verified)

    async def send(self, transaction: Transaction, *, mail_timeout_s: float | None = None) -> tuple[RecipientOutcome, ...]:
        """One transaction. Returns the outcome of each recipient, in their order.

        `mail_timeout_s`: for the reply to MAIL, where that is less than `reply_timeout_s`.

        Outcomes that no peer spoke, because it could not be asked: 554 5.6.3 (8-bit data that a peer without 8BITMIME cannot be
        given, see client_seven_bit.py), 552 5.3.4 (over the
        announced SIZE), 554 5.6.1 (binary, likewise), 553 5.6.7, 554 5.6.9, 550 5.7.10 and 550 5.7.30 (client_demands.py), 553 (an address that fits no
        command). Raises ConnectionLost when a recipient's end stays open.
        """
        if not self.usable:
            self.discard()
            raise ConnectionLost("mail", "session is closed", next_hop=self.next_hop)
        wire = await self._wire_form(transaction)
        self.messages_sent += 1
        dialogue = Dialogue(
            self._session.link,
            self._session.extensions,
            self._options,
            transaction,
            mail_timeout_s=mail_timeout_s,
            verified=self._session.verified,
        )
        try:
            outcomes = await dialogue.run(wire)
        except ConnectionLost as lost:
            lost.next_hop = self.next_hop
            self.discard()
            raise
        except BaseException:  # cancelled in the middle: the next reply would be taken for that of another command
            self.discard()
            raise
        if not dialogue.in_step:
            self.discard()
        return outcomes

    async def _wire_form(self, transaction: Transaction) -> WireMessage:
        """The message as this peer can take it, as far as it can."""
        body, extensions = transaction.body, self._session.extensions
        if transaction.body_type is BodyType.BINARY_MIME:
            if extensions.binary_mime:
                return to_chunk(body)
            text = await asyncio.to_thread(to_text, bytes(body), eight_bit=extensions.eight_bit_mime)
            if text is None:
                return WireMessage(b"", 0, eight_bit=False, normalised=False, cannot_go=True)
            _log.info("message.encoded_as_text", next_hop=self.next_hop.host, size_bytes=len(text))
            return to_wire(text)
        wire = to_wire(body)
        if wire.normalised:
            _log.warning("message.line_ends_normalised", next_hop=self.next_hop.host, size_bytes=wire.size_bytes)
        if wire.eight_bit and not extensions.eight_bit_mime:
            encoded = await asyncio.to_thread(to_seven_bit, in_lines(body)[0])
            if encoded is not None:
                _log.info("message.encoded_in_seven_bit", next_hop=self.next_hop.host, size_bytes=len(encoded))
                return to_wire(encoded)
        return wire

    async def quit(self) -> None:
        """QUIT and close, within 6 s. Never raises but CancelledError, and closes then too."""
        self._in_step = False
        await say_quit(self._session.link)

    def discard(self) -> None:
        """Close at once, without a word."""
        self._in_step = False
        self._session.link.abort()
