"""One transaction over an open session: MAIL, RCPT…, DATA or BDAT, the message; and what became of each recipient.

With PIPELINING (RFC 2920) MAIL, all RCPT and DATA go out in one write, else one by one. DATA is only meant when a recipient was
accepted: where it was sent ahead and answered 354 although none was, an empty message is ended at once (RFC 2920 section 3.1).
A recipient is settled by the first reply that decides it: the refusal of MAIL, of its RCPT, of DATA, or the reply to the end of
data. 421, whenever it comes, settles everybody who is still open, and ends the session.
Standards: RFC 5321 sections 3.3, 4.1.4, 4.2.1, 4.5.3.2; RFC 1047 (the gap behind the final dot).
"""

from __future__ import annotations

from postern_core.envelope import Recipient
from postern_smtp.client_data import END_OF_DATA, WireMessage
from postern_smtp.client_demands import needs_utf8, refuse, refuse_to
from postern_smtp.client_link import Link, LinkLost, PeerSilent
from postern_smtp.client_types import ClientOptions, ConnectionLost, RecipientOutcome, ServerReply, Transaction
from postern_smtp.client_wire import (
    BAD_FORWARD_PATH,
    Extensions,
    RawReply,
    mail_command,
    rcpt_command,
    refuse_message,
    refuse_path,
)

_RESET_TIMEOUT_S = 20.0  # a connection that takes longer is not worth keeping


class _SessionEnded(Exception):  # noqa: N818 - names what happened
    """The peer gave the last reply of this session; who is still open gets it too."""

    def __init__(self, reply: ServerReply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Dialogue:
    """One run of one transaction. `mail_timeout_s`, where it is less than the other time-outs, is for the reply to MAIL; `verified`:
    the peer's certificate is."""

    def __init__(
        self,
        link: Link,
        extensions: Extensions,
        options: ClientOptions,
        transaction: Transaction,
        *,
        mail_timeout_s: float | None = None,
        verified: bool = False,
    ) -> None:
        self._link = link
        self._extensions = extensions
        self._options = options
        self._transaction = transaction
        self._mail_timeout_s = min(options.command_timeout_s, mail_timeout_s or options.command_timeout_s)
        self._verified = verified
        self._stage = "mail"
        self._outcomes: list[RecipientOutcome | None] = [None] * len(transaction.recipients)
        self.in_step = True  # afterwards: the session is ready for the next MAIL

    async def run(self, wire: WireMessage) -> tuple[RecipientOutcome, ...]:
        """The outcome of each recipient, in their order. Raises ConnectionLost; then, and if not `in_step`, the session is over."""
        named = self._commands(wire)
        if named is None:
            return self._settled()
        mail, rcpt, open_recipients = named
        try:
            if wire.binary:
                await self._by_chunk(mail, rcpt, open_recipients, wire)
            elif self._extensions.pipelining:
                await self._pipelined(mail, rcpt, open_recipients, wire)
            else:
                await self._step_by_step(mail, rcpt, open_recipients, wire)
        except _SessionEnded as ended:
            self.in_step = False
            self._settle_rest(ended.reply)
        except LinkLost as lost:
            self.in_step = False
            if None in self._outcomes:
                raise self._lost(lost) from lost
        return self._settled()

    def _commands(self, wire: WireMessage) -> tuple[bytes, list[bytes], list[int]] | None:
        """MAIL, and RCPT for the recipients in these places; None when nobody can be offered the message, which settles everybody."""
        refusal = refuse(self._transaction, self._extensions, verified=self._verified)
        refusal = refusal or refuse_message(self._transaction, wire, self._extensions)
        if refusal is not None:
            self._settle_rest(refusal)
            return None
        open_recipients = self._refuse_paths()
        if not open_recipients:
            return None
        utf8 = self._extensions.utf8 and needs_utf8(self._transaction)
        mail = mail_command(self._transaction, wire, self._extensions, utf8=utf8)
        rcpt = [rcpt_command(self._transaction.recipients[i], self._extensions, utf8=utf8) for i in open_recipients]
        return mail, rcpt, open_recipients

    async def _pipelined(self, mail: bytes, rcpt: list[bytes], open_recipients: list[int], wire: WireMessage) -> None:
        self._link.write(b"".join((mail, *rcpt, b"DATA\r\n")), commands=len(rcpt) + 2)
        mail_accepted = await self._group_answered(open_recipients)
        self._stage = "data"
        reply = await self._reply()
        if reply.code != 354:
            await self._data_refused(reply, reset=mail_accepted)
        elif None in self._outcomes:
            await self._send_message(wire)
        else:
            self._link.write(END_OF_DATA)
            self._is_positive(await self._reply(self._options.data_timeout_s))

    async def _by_chunk(self, mail: bytes, rcpt: list[bytes], open_recipients: list[int], wire: WireMessage) -> None:
        """BDAT has no go-ahead, and what was sent cannot be taken back: it waits until a recipient was accepted."""
        if self._extensions.pipelining:
            self._link.write(b"".join((mail, *rcpt)), commands=len(rcpt) + 1)
            if not await self._group_answered(open_recipients):
                return
            if None not in self._outcomes:
                await self._reset()
                return
        elif not await self._named_step_by_step(mail, rcpt, open_recipients):
            return
        self._stage = "data"
        await self._send_message(wire)

    async def _group_answered(self, open_recipients: list[int]) -> bool:
        mail_accepted = self._mail_answered(await self._reply(self._mail_timeout_s))
        for i in open_recipients:
            self._rcpt_answered(i, await self._reply(), mail_accepted=mail_accepted)
        return mail_accepted

    async def _named_step_by_step(self, mail: bytes, rcpt: list[bytes], open_recipients: list[int]) -> bool:
        """MAIL and RCPT; whether a recipient was accepted."""
        self._link.write(mail)
        if not self._mail_answered(await self._reply(self._mail_timeout_s)):
            return False
        for i, command in zip(open_recipients, rcpt, strict=True):
            self._link.write(command)
            self._rcpt_answered(i, await self._reply(), mail_accepted=True)
        if None not in self._outcomes:
            await self._reset()
            return False
        return True

    async def _step_by_step(self, mail: bytes, rcpt: list[bytes], open_recipients: list[int], wire: WireMessage) -> None:
        if not await self._named_step_by_step(mail, rcpt, open_recipients):
            return
        self._stage = "data"
        self._link.write(b"DATA\r\n")
        reply = await self._reply()
        if reply.code == 354:
            await self._send_message(wire)
        else:
            await self._data_refused(reply, reset=True)

    # -- one step each

    def _refuse_paths(self) -> list[int]:
        """Settles recipients that fit no command; returns the places of the others."""
        places = []
        for i, recipient in enumerate(self._transaction.recipients):
            refusal = refuse_to(recipient.address, self._extensions) or refuse_path(recipient.address, BAD_FORWARD_PATH)
            if refusal is None and recipient.address:
                places.append(i)
            else:
                self._outcomes[i] = RecipientOutcome(recipient, refusal or BAD_FORWARD_PATH, "rcpt")
        return places

    def _mail_answered(self, reply: RawReply) -> bool:
        if self._is_positive(reply):
            self._stage = "rcpt"
            return True
        self._settle_rest(reply.decoded())
        self._stage = "rcpt"
        return False

    def _rcpt_answered(self, i: int, reply: RawReply, *, mail_accepted: bool) -> None:
        if mail_accepted and not self._is_positive(reply):
            self._outcomes[i] = RecipientOutcome(self._transaction.recipients[i], reply.decoded(), self._stage)

    async def _data_refused(self, reply: RawReply, *, reset: bool) -> None:
        if self._is_positive(reply):
            raise LinkLost(f"unexpected reply to DATA: {reply.decoded()}")
        self._settle_rest(reply.decoded())
        if reset:
            await self._reset()

    async def _send_message(self, wire: WireMessage) -> None:
        """The message and its final dot, as fast as the peer takes it; then the reply that counts."""
        for block in wire.blocks():
            if not self._link.is_writable:
                await self._ready_for_data()
            self._link.write(block)
        self._stage = "end-of-data"  # from here on the peer may have the message, whatever we hear (RFC 1047)
        reply = await self._reply(self._options.data_timeout_s)
        self._is_positive(reply)
        self._settle_rest(reply.decoded())

    async def _ready_for_data(self) -> None:
        """Until the peer takes more. A refusal in the middle of the data is final: the message was never ended, nor may it
        be, since it would count as whole."""
        await self._link.drained(self._options.command_timeout_s)
        if self._link.has_reply:
            reply = await self._reply()
            if self._is_positive(reply):
                raise LinkLost(f"reply before the end of data: {reply.decoded()}")
            raise _SessionEnded(reply.decoded())

    async def _reset(self) -> None:
        """RSET, so that the next MAIL starts afresh (RFC 5321 section 4.1.1.5). Everybody is settled already."""
        self._link.write(b"RSET\r\n")
        reply = await self._reply(min(_RESET_TIMEOUT_S, self._options.command_timeout_s))
        self.in_step = self._is_positive(reply)

    # -- replies and outcomes

    async def _reply(self, timeout_s: float | None = None) -> RawReply:
        raw = self._link.take_reply()
        if raw is None:
            raw = await self._link.reply(self._options.command_timeout_s if timeout_s is None else timeout_s)
        if raw.code == 421:  # may come in answer to any command (RFC 5321 section 3.8)
            raise _SessionEnded(raw.decoded())
        return raw

    @staticmethod
    def _is_positive(reply: RawReply) -> bool:
        """2yz: True. 4yz and 5yz: False. A 3yz where none belongs: nobody knows any more what answers what."""
        if reply.code // 100 == 3:
            raise LinkLost(f"unexpected reply: {reply.decoded()}")
        return reply.code // 100 == 2

    def _settle_rest(self, reply: ServerReply) -> None:
        for i, recipient in enumerate(self._transaction.recipients):
            if self._outcomes[i] is None:
                self._outcomes[i] = RecipientOutcome(recipient, reply, self._stage, self._extensions.dsn)

    def _settled(self) -> tuple[RecipientOutcome, ...]:
        return tuple(filter(None, self._outcomes))

    def _lost(self, cause: LinkLost) -> ConnectionLost:
        in_doubt: tuple[Recipient, ...] = ()
        if self._stage == "end-of-data":
            recipients = self._transaction.recipients
            in_doubt = tuple(recipients[i] for i, outcome in enumerate(self._outcomes) if outcome is None)
        return ConnectionLost(self._stage, str(cause), self._settled(), in_doubt, silent=isinstance(cause, PeerSilent))
