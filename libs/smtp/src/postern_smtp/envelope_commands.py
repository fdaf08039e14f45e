"""MAIL and RCPT: their paths and their ESMTP parameters → typed commands. Pure; knows neither the session nor the policy.

SIZE (RFC 1870), BODY (RFC 6152, RFC 3030), AUTH (RFC 4954 section 5), SMTPUTF8 (RFC 6531), REQUIRETLS (RFC 8689), and RET, ENVID, NOTIFY and ORCPT
(RFC 3461 section 4). The parameter of an extension that is not offered is unknown: 555 5.5.4.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from postern_core.envelope import BodyType
from postern_core.errors import Reply
from postern_core.policy import ListenerExtensions
from postern_smtp import replies
from postern_smtp.paths import ForwardPath, ReversePath, parse_forward_path, parse_reverse_path
from postern_smtp.utf8_address import is_orcpt


class CommandRefused(Exception):  # noqa: N818  (a reply on its way to the peer, not a fault of the program)
    """The line is no command that we take; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Mail(msgspec.Struct, frozen=True):
    """MAIL. `size_bytes` is what the client declared, None when it did not."""

    reverse_path: ReversePath
    size_bytes: int | None = None
    body_type: BodyType = BodyType.SEVEN_BIT
    ret: str = ""
    envid: str = ""  # in xtext
    smtputf8: bool = False
    requiretls: bool = False


class Rcpt(msgspec.Struct, frozen=True):
    """RCPT."""

    forward_path: ForwardPath
    notify: str = ""
    orcpt: str = ""  # as it came: utf8_address.py


_XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+"
_PARAMETER = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[!-<>-~\u00a0-\U0010ffff]+))?")
_BODIES: Final = frozenset(body.value for body in BodyType)
_SIZE = re.compile(r"[0-9]{1,20}")
_ENVID = re.compile(_XTEXT)
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_MAX_ENVID_OCTETS = 100  # RFC 3461 section 4.4
_NEED_VALUE: Final = frozenset({"SIZE", "BODY", "RET", "ENVID", "NOTIFY", "ORCPT", "AUTH"})


def parse_mail(argument: str, offered: ListenerExtensions) -> Mail:
    """MAIL, of what stands behind the verb. CommandRefused when it does not fit."""
    try:
        path, rest = parse_reverse_path(_behind("FROM:", argument))
    except ValueError as error:
        raise CommandRefused(replies.BAD_SENDER) from error
    if not rest:
        return Mail(path)
    given = _parameters(rest)
    size, body = given.pop("SIZE", None), given.pop("BODY", "7BIT").upper()
    if size is not None and not _SIZE.fullmatch(size):
        raise CommandRefused(replies.SYNTAX)
    if body not in _BODIES or (body == BodyType.BINARY_MIME and not (offered.binarymime and offered.chunking)):
        raise CommandRefused(replies.SYNTAX)  # RFC 3030 section 3: BINARYMIME needs CHUNKING
    ret, envid = "", ""
    if offered.dsn:
        ret, envid = given.pop("RET", "").upper(), given.pop("ENVID", "")
        if ret not in ("", "FULL", "HDRS") or (envid and not (_ENVID.fullmatch(envid) and len(envid) <= _MAX_ENVID_OCTETS)):
            raise CommandRefused(replies.SYNTAX)
    smtputf8 = offered.smtputf8 and _is_set("SMTPUTF8", given)
    requiretls = offered.requiretls and _is_set("REQUIRETLS", given)
    # who first handed the message in is not trusted, and ignored as RFC 4954 section 5 asks
    given.pop("AUTH", None)
    if given:
        raise CommandRefused(replies.UNKNOWN_PARAMETER)
    return Mail(path, int(size) if size is not None else None, BodyType(body), ret, envid, smtputf8, requiretls)


def parse_rcpt(argument: str, offered: ListenerExtensions) -> Rcpt:
    """RCPT, likewise."""
    try:
        path, rest = parse_forward_path(_behind("TO:", argument))
    except ValueError as error:
        raise CommandRefused(replies.BAD_RECIPIENT) from error
    if not rest:
        return Rcpt(path)
    given = _parameters(rest)
    notify, orcpt = "", ""
    if offered.dsn:
        notify, orcpt = given.pop("NOTIFY", "").upper(), given.pop("ORCPT", "")
        wishes = notify.split(",")
        if notify not in ("", "NEVER") and (not _NOTIFY.issuperset(wishes) or len(set(wishes)) != len(wishes)):
            raise CommandRefused(replies.SYNTAX)
        if orcpt and not is_orcpt(orcpt):
            raise CommandRefused(replies.SYNTAX)
    if given:
        raise CommandRefused(replies.UNKNOWN_PARAMETER)
    return Rcpt(path, notify, orcpt)


def _is_set(name: str, given: dict[str, str]) -> bool:
    """Takes a parameter that has no value (RFC 6531 section 3.1, RFC 8689 section 2) out of `given`."""
    value = given.pop(name, None)
    if value:
        raise CommandRefused(replies.SYNTAX)
    return value is not None


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
        if (value is None and name in _NEED_VALUE) or (name != "ORCPT" and not word.isascii()):
            raise CommandRefused(replies.SYNTAX)
        given[name] = value or ""
    return given
