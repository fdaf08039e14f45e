"""One session: aiosmtpd's protocol with our dialogue in it. Reads in blocks, writes answers, receives messages, starts TLS.

From aiosmtpd come the protocol (its stream reader and writer, its flow control) and the idle timer (connection.py). Replaced are its
command loop, its parsers and its reading of DATA, which go line by line, and its STARTTLS, for which the event loop's own is faster.
What it would tell a peer of an exception is replaced too: `451 4.3.0`, and the traceback goes to the log.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from postern_core.errors import Reply
from postern_smtp import replies
from postern_smtp.authentication import Credentials, Exchange
from postern_smtp.commands import Auth
from postern_smtp.connection import SmtpConnection, tls_of
from postern_smtp.data import DataReader
from postern_smtp.dialogue import Answer, Dialogue, Then, say
from postern_smtp.lines import MAX_AUTH_OCTETS, CommandLines, LineTooLong
from postern_smtp.reception import Reception
from postern_smtp.session import Transaction
from postern_smtp.tls_door import TLS_HANDSHAKE_S, TLS_SHUTDOWN_S

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BLOCK_OCTETS: Final = 256 * 1024
_PROGRESS_OCTETS: Final = 4096  # of data within the idle time
_BARE_NEWLINE_GRACE_S: Final = 5.0
_COMMANDS_A_TURN: Final = 32  # of one client, before the others have theirs


class _Ended(Exception):  # noqa: N818  (not an error: how the conversation loop is left)
    """The session is over; what had to be said was said."""


class GateConnection(SmtpConnection):
    """See the module. One for each connection; made by the listener."""

    def __init__(self, reception: Reception, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._reception = reception
        self._lines = CommandLines()
        self._data: DataReader | None = None  # of the message that is coming in
        self.is_busy = False
        self._has_left = False
        self._dialogue = Dialogue(self.session, reception.profile, reception.newest_rules, reception.unavailable)

    async def _handle_client(self) -> None:
        try:
            await self._converse()
        except _Ended:
            pass
        except OSError as error:  # of the connection, TLS included
            self._end = self._end or f"lost: {type(error).__name__}"
        except Exception as error:  # the one handler of the session: nothing of it reaches the peer
            await self.handle_exception(error)
            self._queue(replies.SESSION_FAILED.line())
            self._end = "failed"
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._has_left:
            return
        self._has_left = True
        self._stop_clocks()
        self._reception.release(self)
        self._hang_up()
        session = self.session
        log.info(
            "session.closed",
            client=session.client_address,
            user=session.user,
            tls=session.tls,
            commands=session.commands,
            accepted=session.accepted,
            errors=session.errors,
            end=self._end,
        )

    async def handle_exception(self, error: Exception) -> str:
        """Log what nobody classified; the peer is told no more than `451 4.3.0`."""
        log.error("session.failed", client=self.session.client_address, exc_info=error)
        return str(replies.LOCAL_ERROR)

    async def _converse(self) -> None:
        refusal = self._reception.admit(self)
        if refusal is not None:
            self._write(say(refusal))
        self._start_clocks(self._dialogue.limits, tls_required=self._reception.profile.tls_required)
        self._write(self._dialogue.greeting())
        while True:
            line = await self._next_line()
            self._reset_timeout(self._dialogue.limits.idle_timeout_s)
            if self._reception.is_draining:
                self._write(say(replies.SHUTTING_DOWN))
            more_waits = not self._lines.is_empty
            try:
                answer = self._dialogue.take(line, more_waits=more_waits)
            except Exception as error:  # a fault of one command ends its transaction, not the session
                if more_waits:
                    raise  # but what was sent on the strength of it must not be read as something else
                self.session.transaction = None
                self._queue(f"{await self.handle_exception(error)}\r\n".encode("ascii"))
                continue
            if answer.then is Then.GO_ON or answer.then is Then.CLOSE:
                self._write(answer)
            else:
                await self._obey(answer)

    async def _obey(self, answer: Answer) -> None:
        match answer.then:
            case Then.READ_DATA:
                self._write(answer)
                await self._receive_message()
            case Then.START_TLS:
                await self._start_tls(answer)
            case Then.AUTHENTICATE if answer.auth is not None:
                await self._exchange_credentials(answer.auth)

    def _write(self, answer: Answer) -> None:
        """Say it, with what else is said before the next wait, and leave when it was the last word."""
        self._queue(answer.wire)
        if answer.then is Then.CLOSE:
            self._end = self._end or (answer.reply.text if answer.reply is not None else "")
            raise _Ended

    async def _next_line(self) -> bytes | LineTooLong:
        lines = self._lines
        if self.session.commands % _COMMANDS_A_TURN == 0:
            # one that pipelines without reading must not make us hold its replies, nor keep the loop to itself
            await self._send()
            await asyncio.sleep(0)
        while (line := lines.next_line()) is None:
            if lines.is_flood:
                self._write(say(replies.LINE_FLOOD))
            await self._send()
            block = await (self._read_past_newline() if lines.waits_after_bare_newline else self._reader.read(_BLOCK_OCTETS))
            if not block:
                self._end = "closed by client"
                raise _Ended
            lines.feed(block)
        return line

    async def _read_past_newline(self) -> bytes:
        try:
            async with asyncio.timeout(_BARE_NEWLINE_GRACE_S):
                return await self._reader.read(_BLOCK_OCTETS)
        except TimeoutError:
            # somebody types, or a program ends its lines with LF: say so instead of leaving it waiting
            self._write(say(replies.STRAY_CONTROL, Then.CLOSE))
            raise _Ended from None

    # --- DATA

    async def _receive_message(self) -> None:
        session, transaction = self.session, self.session.transaction
        assert transaction is not None
        self.is_busy = True
        try:
            self._data = self._dialogue.data_reader()
            body = await self._read_data(self._data)
            if isinstance(body, Reply):
                log.info("data.refused", client=session.client_address, reply=str(body))
                answer = self._dialogue.counted(say(body))
            else:
                session.received_bytes += len(body)
                answer = say(await self._store(transaction, body))
        finally:
            session.transaction = self._data = None
            self.is_busy = False
            self._reception.memory.release(self)
        self._write(answer)
        if self._expired is not None:
            self._write(say(self._expired))
        if self._reception.is_draining:
            self._write(say(replies.SHUTTING_DOWN))

    async def _read_data(self, reader: DataReader) -> bytes | Reply:
        fresh, memory = 0, self._reception.memory
        block = self._lines.take()
        while not reader.feed(block):
            memory.hold(self, reader.buffered_bytes, self.loop.time())
            fresh += len(block)
            if fresh >= _PROGRESS_OCTETS:
                self._reset_timeout(self._dialogue.limits.idle_timeout_s)
                fresh = 0
            await self._send()
            block = await self._reader.read(_BLOCK_OCTETS)
            if not block:
                self._end = "closed by client in DATA"
                raise _Ended
        memory.hold(self, reader.buffered_bytes, self.loop.time())  # also what came in one block: it may have to let go
        self._lines.feed(reader.rest)
        return reader.message()

    def let_go(self) -> None:
        """Drop what came of the message so far; its end of data is answered with 452 4.3.1."""
        if self._data is not None:
            self._data.discard(replies.OUT_OF_MEMORY)

    async def _store(self, transaction: Transaction, body: bytes) -> Reply:
        session = self.session
        self._flush()
        self._reception.memory.release(self)  # from here on the body is counted with those that are being stored
        self.is_storing = True  # so that it runs on when the client is gone
        try:
            reply = await self._reception.store(transaction, session.client, body, extended=session.extended)
        finally:
            self.is_storing = False
        if self._has_left:
            raise _Ended
        if reply.code == 250:
            session.accepted += 1
        return reply

    # --- TLS and AUTH

    async def _start_tls(self, answer: Answer) -> None:
        context = self._reception.profile.tls
        assert context is not None and self.transport is not None  # noqa: PT018  (else STARTTLS is not legal)
        self._write(answer)
        await self._send()
        # what came before TLS must not count as said inside it (RFC 3207 section 5, CVE-2011-0411); there is no await between this and
        # the change of protocol, and none of it after: the first command may come together with the end of the handshake
        self._discard_plaintext()
        self._is_in_handshake = True
        try:
            transport = await self.loop.start_tls(
                self.transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=TLS_HANDSHAKE_S,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )
        finally:
            self._is_in_handshake = False
        if transport is None:
            raise ConnectionResetError("lost in the TLS handshake")
        self.transport = transport
        self._writer._transport = transport  # type: ignore[attr-defined]  # noqa: SLF001  (as StreamWriter.start_tls does, which knows client sides only)
        self._reader._transport = transport  # type: ignore[attr-defined]  # noqa: SLF001
        self.session.secured(tls_of(transport))
        if self._tls_clock is not None:
            self._tls_clock.cancel()
        self._reset_timeout(self._dialogue.limits.idle_timeout_s)

    def _discard_plaintext(self) -> None:
        self._lines.take()
        self._reader._buffer.clear()  # type: ignore[attr-defined]  # noqa: SLF001
        self._reader._maybe_resume_transport()  # type: ignore[attr-defined]  # noqa: SLF001

    async def _exchange_credentials(self, auth: Auth) -> None:
        session, authenticator = self.session, self._reception.profile.authenticator
        assert authenticator is not None
        exchange = Exchange(auth.mechanism)
        step = exchange.start(auth.initial)
        while isinstance(step, Reply) and step.code == 334:
            self._queue(step.line())
            line = await self._next_line()
            if isinstance(line, LineTooLong) or len(line) + 2 > MAX_AUTH_OCTETS:
                step = replies.AUTH_LINE_TOO_LONG
            else:
                step = exchange.answer(line)
        if isinstance(step, Credentials):
            self._flush()
            verified = await authenticator.verify(step.name, step.password, session.client_address)
            if not isinstance(verified, Reply):
                session.user = verified
                log.info("user.authenticated", client=session.client_address, user=verified)
                self._write(say(replies.AUTHENTICATED))
                self._reset_timeout(self._dialogue.limits.idle_timeout_s)
                return
            step = verified
        session.auth_attempts += 1  # those that were not heard, too: else an address that is turned away asks for ever
        if session.auth_attempts >= authenticator.max_attempts:
            self._queue(step.line())
            self._write(say(replies.AUTH_ATTEMPTS_USED))
        self._write(self._dialogue.counted(say(step)))
