"""TLS and AUTH on one connection."""

from __future__ import annotations

import structlog

from postern_core.errors import Reply
from postern_smtp import replies
from postern_smtp.authentication import Credentials, Exchange
from postern_smtp.commands import Auth
from postern_smtp.connection import tls_of
from postern_smtp.conversation import Conversation
from postern_smtp.dialogue import Answer, say
from postern_smtp.lines import LineTooLong
from postern_smtp.tls_door import TLS_HANDSHAKE_S, TLS_SHUTDOWN_S

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Securing(Conversation):
    """See the module."""

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
            refusal = self._dialogue.auth_line_refusal(line)
            if refusal is not None and refusal.code == 421:
                self._write(say(refusal))
            if refusal is not None or isinstance(line, LineTooLong):
                step = refusal or replies.AUTH_LINE_TOO_LONG
            else:
                step = exchange.answer(line)
        if isinstance(step, Credentials):
            self._flush()
            verified = await authenticator.verify(step.name, step.password, session.client_address)
            if not isinstance(verified, Reply):
                session.user, session.credential = verified.user, verified.credential
                log.info("user.authenticated", client=session.client_address, user=session.user)
                self._write(say(replies.AUTHENTICATED))
                self._reset_timeout(self._dialogue.limits.idle_timeout_s)
                return
            step = verified
        session.auth_attempts += 1  # those that were not heard, too: else an address that is turned away asks for ever
        if session.auth_attempts >= authenticator.max_attempts:
            self._queue(step.line())
            self._write(say(replies.AUTH_ATTEMPTS_USED))
        self._write(self._dialogue.counted(say(step)))
