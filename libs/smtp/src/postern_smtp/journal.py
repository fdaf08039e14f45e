"""What one session tells the session log (postern_core.session_log): a record for each command, and one for the whole at its end. Pure.

Never credentials: of AUTH only the mechanism, and nothing at all of a line that is no command, since a client that is out of step
sends passwords and message text as commands.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from postern_core.session_log import UNKNOWN, WHOLE, SessionRecord
from postern_smtp.answers import Answer
from postern_smtp.commands import NOT_IMPLEMENTED, Verb
from postern_smtp.lines import LineTooLong
from postern_smtp.replies import QUEUED_AS
from postern_smtp.session import Session

TellSession = Callable[[SessionRecord], None]

_NAMES: Final = {name.encode(): name for name in (*Verb.__members__, *NOT_IMPLEMENTED)}
_WITH_ARGUMENT: Final = frozenset({"HELO", "EHLO", "MAIL", "RCPT", "VRFY", "EXPN", "ETRN"})
_MECHANISMS: Final = frozenset(
    {"PLAIN", "LOGIN", "EXTERNAL", "CRAM-MD5", "DIGEST-MD5", "NTLM", "GSSAPI", "XOAUTH2", "OAUTHBEARER", "ANONYMOUS"}
    | {f"SCRAM-SHA-{digest}{plus}" for digest in ("1", "256", "512") for plus in ("", "-PLUS")}
)
_MOST_OCTETS: Final = 512  # of an argument


class Journal:
    """The commands of one session: `begun` with each line, `replied` with all that is answered to it. `now` is a clock in seconds."""

    def __init__(self, session: Session, tell: TellSession, now: Callable[[], float]) -> None:
        self._session = session
        self._tell = tell
        self._now = now
        self._verb = ""  # of the command that has no final reply yet
        self._argument = ""
        self._began = 0.0
        self._received = 0
        self._data_before = 0

    def begun(self, line: bytes | LineTooLong) -> None:
        """A command came."""
        self._verb, self._argument, self._received = UNKNOWN, "", 0
        self._began, self._data_before = self._now(), self._session.received_bytes
        if isinstance(line, LineTooLong):
            return
        self._received = len(line) + 2
        word, _, argument = line.partition(b" ")
        verb = _NAMES.get(word.upper())
        if verb is not None:
            self._verb, self._argument = verb, _shown(verb, argument)

    def replied(self, answer: Answer) -> None:
        """`answer` goes out. 3yz is no end of a command, and what comes after its end is of the session."""
        code = int(answer.wire[:3]) if answer.wire else 0
        if self._verb and not 300 <= code < 400:
            if answer.reply is not None and answer.reply.text.startswith(QUEUED_AS):
                self._argument = answer.reply.text.removeprefix(QUEUED_AS)
            self.over(code, len(answer.wire))

    def over(self, code: int, sent_bytes: int = 0) -> None:
        """The command has come to its end."""
        session, verb = self._session, self._verb
        self._verb = ""
        self._tell(
            SessionRecord(
                session=session.id,
                n=session.commands,
                at=datetime.now(UTC),
                client=session.client_address,
                server=session.server_address,
                host=session.host,
                user=session.user,
                tls=session.tls,
                verb=verb,
                argument=self._argument,
                code=code,
                received_bytes=self._received + session.received_bytes - self._data_before,
                sent_bytes=sent_bytes,
                taken_ms=round((self._now() - self._began) * 1000),
            )
        )


def whole_session(session: Session, end: str, taken_s: float) -> SessionRecord:
    """The record of a session that is over."""
    return SessionRecord(
        session=session.id,
        at=datetime.now(UTC),
        client=session.client_address,
        server=session.server_address,
        host=session.host,
        user=session.user,
        tls=session.tls,
        verb=WHOLE,
        argument=end,
        received_bytes=session.octets_in,
        sent_bytes=session.octets_out,
        taken_ms=round(taken_s * 1000),
        commands=session.commands,
        errors=session.errors,
        messages=session.accepted,
        recipients=session.recipients,
    )


def _shown(verb: str, argument: bytes) -> str:
    if verb == Verb.AUTH:
        mechanism = argument.partition(b" ")[0].decode("ascii", "replace").upper()
        return mechanism if mechanism in _MECHANISMS else ""
    if verb not in _WITH_ARGUMENT:
        return ""
    shown = argument[:_MOST_OCTETS].decode("utf-8", "replace")
    return shown if shown.isprintable() else "".join(c if c.isprintable() else "?" for c in shown)
