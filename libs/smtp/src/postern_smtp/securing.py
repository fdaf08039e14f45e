"""TLS and AUTH on one connection."""

from __future__ import annotations

from typing import Final

import structlog

from postern_core.counters import CounterName
from postern_core.errors import Reply
from postern_core.notices import NoticeKind
from postern_core.scram import Verifier
from postern_smtp import replies
from postern_smtp.authentication import Asked, Certified, Credentials, Exchange, Proof, Step, VerifierWanted
from postern_smtp.commands import Auth
from postern_smtp.connection import certificate_names_of, tls_of
from postern_smtp.conversation import Conversation, Ended
from postern_smtp.dialogue import Answer, say
from postern_smtp.gate import Authenticator, Login
from postern_smtp.lines import LineTooLong
from postern_smtp.tls import is_too_weak
from postern_smtp.tls_door import TLS_HANDSHAKE_S, TLS_SHUTDOWN_S, why_failed

log: structlog.stdlib.BoundLogger = structlog.get_logger()


# what a refusal of AUTH means; anything else: the client ended it, or sent what is no answer
_OUTCOMES: Final = {535: "failed", 454: "unavailable"}


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
        except OSError as error:
            reason = why_failed(error)
            log.info("tls.failed", client=self.session.client_address, reason=reason)
            self._reception.notice(NoticeKind.TLS_FAILED, self.session.client_address, reason=reason)
            raise
        finally:
            self._is_in_handshake = False
        if transport is None:
            raise ConnectionResetError("lost in the TLS handshake")
        self.transport = transport
        self._writer._transport = transport  # type: ignore[attr-defined]  # noqa: SLF001  (as StreamWriter.start_tls does, which knows client sides only)
        self._reader._transport = transport  # type: ignore[attr-defined]  # noqa: SLF001
        self._require_strength()
        self.session.secured(tls_of(transport), certificate_names_of(transport))
        self._count_tls()
        if self._tls_clock is not None:
            self._tls_clock.cancel()

    def _count_tls(self) -> None:
        """By its version."""
        self._reception.counters.add(CounterName.TLS_SESSIONS, self.session.tls.partition(" ")[0])

    def _require_strength(self) -> None:
        """End the session when its cipher is below the policy's floor."""
        cipher, rules = self.transport.get_extra_info("cipher") if self.transport else None, self._reception.newest_rules()
        if cipher and rules is not None and is_too_weak(cipher[2], rules.listener.tls):
            log.info("tls.failed", client=self.session.client_address, reason="cipher too weak", cipher=cipher[0])
            self._reception.notice(NoticeKind.TLS_FAILED, self.session.client_address, reason="cipher too weak")
            self._end = "cipher too weak"
            raise Ended

    def _discard_plaintext(self) -> None:
        self._lines.take()
        self._reader._buffer.clear()  # type: ignore[attr-defined]  # noqa: SLF001
        self._reader._maybe_resume_transport()  # type: ignore[attr-defined]  # noqa: SLF001

    async def _exchange_credentials(self, auth: Auth) -> None:
        session, authenticator = self.session, self._reception.profile.authenticator
        assert authenticator is not None
        exchange = Exchange(auth.mechanism, self._dialogue.mechanisms)
        step = exchange.start(auth.initial)
        while not isinstance(step, Reply) or step.code == 334:
            if isinstance(step, Reply):
                step = await self._challenge(exchange, step)
            else:
                self._flush()
                step = exchange.resume(await self._find_out(authenticator, step))
        if exchange.login is not None and step is replies.AUTHENTICATED:
            session.user, session.credential = exchange.login.user, exchange.login.credential
            self._reception.counters.add(CounterName.AUTHENTICATIONS, "succeeded")
            log.info("user.authenticated", client=session.client_address, user=session.user, mechanism=auth.mechanism)
            self._write(say(step))
            return
        self._reception.counters.add(CounterName.AUTHENTICATIONS, _OUTCOMES.get(step.code, "given-up"))
        session.auth_attempts += 1  # those that were not heard, too: else an address that is turned away asks for ever
        if session.auth_attempts >= authenticator.max_attempts:
            self._queue(step.line())
            self._write(say(replies.AUTH_ATTEMPTS_USED))
        self._write(self._dialogue.counted(say(step)))

    async def _challenge(self, exchange: Exchange, challenge: Reply) -> Step:
        self._queue(challenge.line())
        line = await self._next_line()
        refusal = self._dialogue.auth_line_refusal(line)
        if refusal is not None and refusal.code == 421:
            self._write(say(refusal))
        if refusal is not None or isinstance(line, LineTooLong):
            return refusal or replies.AUTH_LINE_TOO_LONG
        return exchange.answer(line)

    async def _find_out(self, authenticator: Authenticator, asked: Asked) -> Login | Verifier | Reply:
        client = self.session.client_address
        match asked:
            case Credentials(name, password):
                return await authenticator.verify(name, password, client)
            case VerifierWanted(name):
                return await authenticator.verifier(name, client)
            case Proof(name, is_right):
                return await authenticator.proven(name, is_right, client)
            case Certified(user):
                return await authenticator.certified(self.session.certificate_names, user, client)
