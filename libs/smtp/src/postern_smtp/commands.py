"""Commands: one line → one typed command. Pure; knows neither the session nor the policy.

Grammar of RFC 5321 section 4.1; MAIL and RCPT with their parameters are in envelope_commands.py. Commands are ASCII without control
characters, or UTF-8 where SMTPUTF8 allows it (demands.py); anything else is refused, never cleaned up. Tolerated, since many clients do it:
white space behind `FROM:` and `TO:`, at the end of a line, and parameters after HELO.
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

from postern_core.policy import ListenerExtensions
from postern_smtp import replies
from postern_smtp.demands import decoded
from postern_smtp.envelope_commands import CommandRefused, Mail, Rcpt, parse_mail, parse_rcpt
from postern_smtp.lines import MAX_COMMAND_OCTETS

__all__ = [
    "NOT_IMPLEMENTED",
    "Auth",
    "Bdat",
    "Command",
    "CommandRefused",
    "Hello",
    "Mail",
    "Plain",
    "Rcpt",
    "Verb",
    "chunk_of",
    "parse",
    "split_verb",
]


class Verb(enum.StrEnum):
    """The commands that we know."""

    __hash__ = str.__hash__  # Enum's own is a Python function

    HELO = "HELO"
    EHLO = "EHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    RSET = "RSET"
    NOOP = "NOOP"
    QUIT = "QUIT"
    VRFY = "VRFY"
    HELP = "HELP"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"


_VERBS: Final = dict(Verb.__members__)
# known to the standards, not to us
NOT_IMPLEMENTED: Final = frozenset({"EXPN", "ETRN", "ATRN", "TURN", "SEND", "SOML", "SAML", "BURL"})


class Hello(msgspec.Struct, frozen=True):
    """HELO or EHLO. `host` is what the client calls itself, not checked and not trusted."""

    host: str
    extended: bool


class Auth(msgspec.Struct, frozen=True):
    """AUTH. `initial` is the initial response in base64, None when there was none; never logged."""

    mechanism: str
    initial: str | None

    def __repr__(self) -> str:
        return f"Auth({self.mechanism})"


class Bdat(msgspec.Struct, frozen=True):
    """BDAT (RFC 3030 section 2): so many octets of the message follow behind its line."""

    octets: int
    last: bool


class Plain(msgspec.Struct, frozen=True):
    """A command without parameters that matter."""

    verb: Verb


Command = Hello | Mail | Rcpt | Bdat | Auth | Plain

_BDAT = re.compile(r"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)
_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}")
_MAX_HOST_OCTETS = 255


def split_verb(line: bytes, *, utf8: bool = False) -> tuple[Verb, str]:
    """The verb of a line and the text behind it. CommandRefused when it has none, or holds what it may not; `utf8`: SMTPUTF8 is offered."""
    text = decoded(line, utf8=utf8)
    if not text.isprintable():
        raise CommandRefused(replies.STRAY_CONTROL)
    word, _, argument = text.partition(" ")
    name = word.upper()
    if len(line) + 2 > MAX_COMMAND_OCTETS and name != Verb.AUTH:
        raise CommandRefused(replies.LINE_TOO_LONG)
    verb = _VERBS.get(name)
    if verb is None:
        raise CommandRefused(replies.NOT_IMPLEMENTED if name in NOT_IMPLEMENTED else replies.UNKNOWN_COMMAND)
    return verb, argument.strip(" ")


def parse(verb: Verb, argument: str, offered: ListenerExtensions) -> Command:
    """The command. CommandRefused when the argument does not fit, or needs an extension that is not `offered`."""
    if verb is Verb.MAIL:
        return parse_mail(argument, offered)
    if verb is Verb.RCPT:
        return parse_rcpt(argument, offered)
    if verb in (Verb.HELO, Verb.EHLO):
        if not argument or " " in argument or len(argument) > _MAX_HOST_OCTETS:
            raise CommandRefused(replies.NEEDS_DOMAIN)
        return Hello(argument, extended=verb is Verb.EHLO)
    if verb is Verb.BDAT:
        return _bdat(argument)
    if verb is Verb.AUTH:
        return _auth(argument)
    if argument and verb in (Verb.DATA, Verb.RSET, Verb.QUIT, Verb.STARTTLS):
        raise CommandRefused(replies.NO_ARGUMENT)
    if not argument and verb is Verb.VRFY:
        raise CommandRefused(replies.SYNTAX)
    return Plain(verb)


def chunk_of(line: bytes) -> Bdat | None:
    """The octets that follow a BDAT line which is refused, whatever is wrong with it; None when nobody can tell how many they are."""
    found = _BDAT.fullmatch(line[4:].decode("latin-1").strip(" "))
    return Bdat(int(found[1]), found[2] is not None) if found is not None else None


def _bdat(argument: str) -> Bdat:
    found = _BDAT.fullmatch(argument)
    if found is None:
        raise CommandRefused(replies.SYNTAX)
    return Bdat(int(found[1]), found[2] is not None)


def _auth(argument: str) -> Auth:
    words = argument.split(" ")
    if len(words) > 2 or not _MECHANISM.fullmatch(words[0]):
        raise CommandRefused(replies.SYNTAX)
    return Auth(words[0].upper(), words[1] if len(words) == 2 else None)
