"""What a client may ask for in one session and not in another: SMTPUTF8 (RFC 6531) and REQUIRETLS (RFC 8689). Pure.

UTF-8 stands in MAIL, RCPT and VRFY only, and only with SMTPUTF8: at MAIL for the whole transaction, at VRFY for itself. Line by line it is
looked at as characters, so that what ends a line, turns the direction of writing or cannot be seen (RFC 6532 section 3: none of it has a
place in an address) is refused like any control character, and reaches neither a header field nor a log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postern_core.errors import Reply
from postern_smtp import replies
from postern_smtp.envelope_commands import CommandRefused, Mail, Rcpt

if TYPE_CHECKING:
    from postern_smtp.commands import Command
    from postern_smtp.session import Session

_HOLD_UTF8: Final = frozenset({b"MAIL", b"RCPT", b"VRFY"})
_HOLD_PATHS: Final = frozenset({b"MAIL", b"RCPT"})


def decoded(line: bytes, *, utf8: bool) -> str:
    """The characters of a command line. CommandRefused when it holds octets that it may not; `utf8`: SMTPUTF8 is offered."""
    if line.isascii():
        return line.decode("ascii")
    verb = line[:4].upper()
    if not utf8 or verb not in _HOLD_UTF8:
        raise CommandRefused(replies.NOT_ASCII if verb in _HOLD_PATHS else replies.EIGHT_BIT_COMMAND)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CommandRefused(replies.NOT_UTF8) from error


def unmet_demand(command: Command, argument: str, session: Session) -> Reply | None:
    """Why the session cannot have what `command` (parsed from `argument`) asks for; None when it can."""
    if isinstance(command, Mail):
        if (command.smtputf8 or command.requiretls) and not session.extended:
            return replies.UNKNOWN_PARAMETER  # after HELO there are no extensions (RFC 5321 section 2.2.1)
        if command.requiretls and not session.tls:
            return replies.REQUIRETLS_NEEDS_TLS
    if argument.isascii() or _has_smtputf8(command, argument, session):
        return None
    # also where only the domain is not ASCII, though it leaves here in A-labels: the client has not said what it sends
    return replies.NEEDS_SMTPUTF8


def _has_smtputf8(command: Command, argument: str, session: Session) -> bool:
    if isinstance(command, Mail):
        return command.smtputf8
    if isinstance(command, Rcpt):
        return session.transaction is not None and session.transaction.mail.smtputf8
    return argument.upper().endswith(" SMTPUTF8")  # VRFY (RFC 6531 section 3.7.4.2)
