"""Commands: one line → one typed command. Pure; knows neither the session nor the policy.

Grammar of RFC 5321 section 4.1, with the parameters SIZE (RFC 1870), BODY (RFC 6152), AUTH (RFC 4954 section 5), and RET, ENVID, NOTIFY
and ORCPT (RFC 3461 section 4). Commands are ASCII without control characters; anything else is refused, never cleaned up. Tolerated, since
many clients do it: white space behind `FROM:` and `TO:`, at the end of a line, and parameters after HELO.
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

from postern_core.envelope import BodyType
from postern_core.errors import Reply
from postern_smtp import replies
from postern_smtp.lines import MAX_COMMAND_OCTETS
from postern_smtp.paths import ForwardPath, ReversePath, parse_forward_path, parse_reverse_path


class Verb(enum.StrEnum):
    """The commands that we know."""

    __hash__ = str.__hash__  # Enum's own is a Python function

    HELO = "HELO"
    EHLO = "EHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    RSET = "RSET"
    NOOP = "NOOP"
    QUIT = "QUIT"
    VRFY = "VRFY"
    HELP = "HELP"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"


_VERBS: Final = dict(Verb.__members__)
# known to the standards, not to us
NOT_IMPLEMENTED: Final = frozenset({"EXPN", "ETRN", "ATRN", "TURN", "SEND", "SOML", "SAML", "BDAT", "BURL"})


class CommandRefused(Exception):  # noqa: N818  (a reply on its way to the peer, not a fault of the program)
    """The line is no command that we take; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Hello(msgspec.Struct, frozen=True):
    """HELO or EHLO. `host` is what the client calls itself, not checked and not trusted."""

    host: str
    extended: bool


class Mail(msgspec.Struct, frozen=True):
    """MAIL. `size_bytes` is what the client declared, None when it did not."""

    reverse_path: ReversePath
    size_bytes: int | None = None
    body_type: BodyType = BodyType.SEVEN_BIT
    ret: str = ""
    envid: str = ""  # in xtext


class Rcpt(msgspec.Struct, frozen=True):
    """RCPT."""

    forward_path: ForwardPath
    notify: str = ""
    orcpt: str = ""  # in xtext


class Auth(msgspec.Struct, frozen=True):
    """AUTH. `initial` is the initial response in base64, None when there was none; never logged."""

    mechanism: str
    initial: str | None

    def __repr__(self) -> str:
        return f"Auth({self.mechanism})"


class Plain(msgspec.Struct, frozen=True):
    """A command without parameters that matter."""

    verb: Verb


Command = Hello | Mail | Rcpt | Auth | Plain

_XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+"
_PARAMETER = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[!-<>-~]+))?")
_SIZE = re.compile(r"[0-9]{1,20}")
_ENVID = re.compile(_XTEXT)
_ORCPT = re.compile(rf"[A-Za-z0-9-]+;{_XTEXT}")
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}")
_MAX_HOST_OCTETS = 255
_MAX_ENVID_OCTETS = 100  # RFC 3461 section 4.4
_MAX_ORCPT_OCTETS = 500  # RFC 3461 section 4.2


def split_verb(line: bytes) -> tuple[Verb, str]:
    """The verb of a line and the text behind it. CommandRefused when it has none, or is not plain ASCII."""
    if not line.isascii():
        raise CommandRefused(_refuse_eight_bit(line))
    text = line.decode("ascii")
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


def parse(verb: Verb, argument: str, *, dsn: bool = True) -> Command:
    """The command. CommandRefused when the argument does not fit; `dsn` says whether RFC 3461 was offered."""
    if verb is Verb.MAIL:
        return _mail(argument, dsn=dsn)
    if verb is Verb.RCPT:
        return _rcpt(argument, dsn=dsn)
    if verb in (Verb.HELO, Verb.EHLO):
        if not argument or " " in argument or len(argument) > _MAX_HOST_OCTETS:
            raise CommandRefused(replies.NEEDS_DOMAIN)
        return Hello(argument, extended=verb is Verb.EHLO)
    if verb is Verb.AUTH:
        return _auth(argument)
    if argument and verb in (Verb.DATA, Verb.RSET, Verb.QUIT, Verb.STARTTLS):
        raise CommandRefused(replies.NO_ARGUMENT)
    if not argument and verb is Verb.VRFY:
        raise CommandRefused(replies.SYNTAX)
    return Plain(verb)


def _refuse_eight_bit(line: bytes) -> Reply:
    if line[:4].upper() in (b"MAIL", b"RCPT"):
        return replies.NOT_ASCII
    return replies.EIGHT_BIT_COMMAND


def _mail(argument: str, *, dsn: bool) -> Mail:
    try:
        path, rest = parse_reverse_path(_behind("FROM:", argument))
    except ValueError as error:
        raise CommandRefused(replies.BAD_SENDER) from error
    given = _parameters(rest)
    size, body = given.pop("SIZE", None), given.pop("BODY", "7BIT").upper()
    if size is not None and not _SIZE.fullmatch(size):
        raise CommandRefused(replies.SYNTAX)
    if body not in (BodyType.SEVEN_BIT.value, BodyType.EIGHT_BIT_MIME.value):  # BINARYMIME needs CHUNKING (RFC 3030)
        raise CommandRefused(replies.SYNTAX)
    ret, envid = "", ""
    if dsn:
        ret, envid = given.pop("RET", "").upper(), given.pop("ENVID", "")
        if ret not in ("", "FULL", "HDRS") or (envid and not (_ENVID.fullmatch(envid) and len(envid) <= _MAX_ENVID_OCTETS)):
            raise CommandRefused(replies.SYNTAX)
    # who first handed the message in is not trusted, and ignored as RFC 4954 section 5 asks
    given.pop("AUTH", None)
    if given:
        raise CommandRefused(replies.UNKNOWN_PARAMETER)
    return Mail(path, int(size) if size is not None else None, BodyType(body), ret, envid)


def _rcpt(argument: str, *, dsn: bool) -> Rcpt:
    try:
        path, rest = parse_forward_path(_behind("TO:", argument))
    except ValueError as error:
        raise CommandRefused(replies.BAD_RECIPIENT) from error
    given = _parameters(rest)
    notify, orcpt = "", ""
    if dsn:
        notify, orcpt = given.pop("NOTIFY", "").upper(), given.pop("ORCPT", "")
        wishes = notify.split(",")
        if notify not in ("", "NEVER") and (not _NOTIFY.issuperset(wishes) or len(set(wishes)) != len(wishes)):
            raise CommandRefused(replies.SYNTAX)
        if orcpt and not (_ORCPT.fullmatch(orcpt) and len(orcpt) <= _MAX_ORCPT_OCTETS):
            raise CommandRefused(replies.SYNTAX)
    if given:
        raise CommandRefused(replies.UNKNOWN_PARAMETER)
    return Rcpt(path, notify, orcpt)


def _auth(argument: str) -> Auth:
    words = argument.split(" ")
    if len(words) > 2 or not _MECHANISM.fullmatch(words[0]):
        raise CommandRefused(replies.SYNTAX)
    return Auth(words[0].upper(), words[1] if len(words) == 2 else None)


def _behind(keyword: str, argument: str) -> str:
    if argument[: len(keyword)].upper() != keyword:
        raise ValueError(f"no {keyword}")
    return argument[len(keyword) :].lstrip(" ")


def _parameters(text: str) -> dict[str, str]:
    """Parameters by upper-case name; a value that is missing where one is needed is a syntax error, and so is a second one."""
    given: dict[str, str] = {}
    for word in text.split():
        found = _PARAMETER.fullmatch(word)
        if found is None or found["name"].upper() in given:
            raise CommandRefused(replies.SYNTAX)
        name, value = found["name"].upper(), found["value"]
        if value is None and name in _NEED_VALUE:
            raise CommandRefused(replies.SYNTAX)
        given[name] = value or ""
    return given


_NEED_VALUE: Final = frozenset({"SIZE", "BODY", "RET", "ENVID", "NOTIFY", "ORCPT", "AUTH"})
