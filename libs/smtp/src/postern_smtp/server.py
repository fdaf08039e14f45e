"""One session: aiosmtpd's protocol with our dialogue in it. The conversation from the greeting to the end; DATA is in receiving.py, TLS and AUTH in securing.py.

From aiosmtpd come the protocol (its stream reader and writer, its flow control) and the idle timer (connection.py). Replaced are its
command loop, its parsers and its reading of DATA, which go line by line, and its STARTTLS, for which the event loop's own is faster.
What it would tell a peer of an exception is replaced too: `451 4.3.0`, and the traceback goes to the log.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from postern_core.errors import Reply
from postern_core.notices import NoticeKind
from postern_core.policy import SessionLogLevel
from postern_smtp import replies
from postern_smtp.arriving import Arriving
from postern_smtp.checks import Question
from postern_smtp.conversation import Ended
from postern_smtp.dialogue import Answer, Then, brings_data, say
from postern_smtp.journal import Journal, whole_session
from postern_smtp.receiving import Receiving
from postern_smtp.securing import Securing

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CHECKS_S: Final = 60.0  # all checks of one command; each has a time-out of its own that is shorter


class GateConnection(Receiving, Securing, Arriving):
    """See the module. One for each connection; made by the listener."""

    _log_level = SessionLogLevel.OFF  # until it is admitted: who is turned away makes no session

    async def _handle_client(self) -> None:
        try:
            await self._converse()
        except Ended:
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
        self._reception.memory.release(self)  # chunks of a message whose last one never came
        self._reception.release(self)
        self._hang_up()
        session = self.session
        if self._log_level is not SessionLogLevel.OFF:
            self._reception.tell_session(whole_session(session, self._end, self.loop.time() - self.opened_at))
        log.info(
            "session.closed",
            session=session.id,
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
        await self._arrive()
        refusal = self._reception.admit(self)
        if refusal is not None:
            self._write(say(refusal, Then.CLOSE))
        self._require_strength()
        if self.session.tls:
            self._count_tls()
        self._start_journal()
        self._start_clocks(self._dialogue.in_force.limits, tls_required=self._dialogue.tls_required)
        self._write(await self._greeting())
        while True:
            if self._data is not None:
                self._forget_ended_data()
            line = await self._next_line()
            if not self.session.commands:
                self._refuse_header(line)
            journal = self._journal
            if journal is not None:
                journal.begun(line)
            farewell = self._reception.farewell(self.session) if not self.is_busy else None
            if farewell is not None:
                self._write(say(farewell))
            more_waits = not self._lines.is_empty
            try:
                answer = self._dialogue.take(line, more_waits=more_waits)
            except Exception as error:  # a fault of one command ends its transaction, not the session
                if more_waits or brings_data(line):
                    raise  # but what was sent on the strength of it must not be read as something else
                self.session.transaction = None
                self._queue(f"{await self.handle_exception(error)}\r\n".encode("ascii"))
                if journal is not None:
                    journal.over(replies.LOCAL_ERROR.code)
                continue
            if answer.then is Then.GO_ON or answer.then is Then.CLOSE:
                self._write(answer)
            else:
                await self._obey(answer)
                self._reset_timeout(self._dialogue.in_force.limits.idle_timeout_s)  # the client's for its next command

    def _start_journal(self) -> None:
        rules = self._reception.newest_rules()
        if rules is None:
            return
        self._log_level = rules.listener.logging.level
        if self._log_level is SessionLogLevel.COMMANDS:
            self._journal = Journal(self.session, self._reception.tell_session, self.loop.time)

    async def _greeting(self) -> Answer:
        """The greeting, or what a check of the connection says in its place."""
        await self._refuse_early_talk()
        question = self._dialogue.opening()
        refusal = await self._ask(question) if question is not None else None
        if refusal is not None and refusal.code >= 500:
            log.warning("connection.denied", client=self.session.client_address, reply=str(refusal))
            self._reception.notice(
                NoticeKind.CONNECTION_DENIED, self.session.client_address, reply=str(refusal), **self.session.denial
            )
        return say(refusal, Then.CLOSE) if refusal is not None else self._dialogue.greeting()

    async def _obey(self, answer: Answer) -> None:
        match answer.then:
            case Then.READ_DATA:
                self._write(answer)
                await self._receive_message()
            case Then.READ_CHUNK if answer.chunk is not None:
                await self._receive_chunk(answer.chunk, answer.reply)
            case Then.START_TLS:
                await self._start_tls(answer)
            case Then.AUTHENTICATE if answer.auth is not None:
                await self._exchange_credentials(answer.auth)
            case Then.CHECK if answer.question is not None:
                self._write(self._dialogue.checked(answer.question, await self._ask(answer.question)))

    async def _ask(self, question: Question) -> Reply | None:
        await self._send()
        try:
            async with asyncio.timeout(_CHECKS_S):
                refusal = await question.refusal()
        except TimeoutError:
            log.warning("check.timed_out", client=self.session.client_address)
            refusal = replies.LOCAL_ERROR
        self._reset_timeout(self._dialogue.in_force.limits.idle_timeout_s)
        return refusal
