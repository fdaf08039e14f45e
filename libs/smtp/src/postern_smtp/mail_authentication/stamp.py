"""The Authentication-Results field: ours written, forged ones taken out (RFC 8601). Pure.

A field is forged when it claims one of our names as its authserv-id, however it is spelt: in any case, folded, quoted, with a dot at its end, behind
comments. One whose authserv-id cannot be read goes too, since another program might read ours in it. All others stay: they are somebody else's word.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from postern_core.policy.domains import normalise_domain
from postern_smtp.mail_authentication.arc import ArcResult
from postern_smtp.mail_authentication.dkim import DkimResult
from postern_smtp.mail_authentication.dmarc import DmarcResult
from postern_smtp.mail_authentication.results import Result
from postern_smtp.mail_authentication.spf import SpfResult

_FIELD: Final = re.compile(rb"(?:(?<=[\r\n])|\A)authentication-results[ \t]*:", re.IGNORECASE)
_NEXT_FIELD: Final = re.compile(rb"\r?\n(?![ \t])|\r(?![\n \t])")
_HEADER_END: Final = re.compile(rb"\r\n\r\n")
_MAX_READ: Final = 1000  # fields; of so many no honest message has more, and all further ones go
_ID_OCTETS: Final = 1000  # an authserv-id that is not over by then cannot be read
_TOKEN: Final = re.compile(rb"[^\x00-\x20\x7f()<>,;\"\\\[\]?]+")
_SAFE: Final = re.compile(r"[A-Za-z0-9!#$&'*+.^_`{|}~/:@=-]+")
_MAX_VALUE: Final = 320
_MAX_REASON: Final = 100


def results_field(
    authserv_id: str, *, spf: SpfResult, dkim: Iterable[DkimResult], dmarc: DmarcResult, arc: ArcResult, client_address: str
) -> bytes:
    """The whole field with its CRLF, one result a line."""
    lines = [authserv_id, _spf(spf), *map(_dkim, dkim), _dmarc(dmarc)]
    if arc.result is not Result.NONE:
        lines.append(f"arc={arc.result}{_reason(arc.reason)}{_property('smtp.remote-ip', client_address)}")
    return f"Authentication-Results: {f';{chr(13)}{chr(10)}{chr(9)}'.join(lines)}\r\n".encode("ascii", "replace")


def _spf(spf: SpfResult) -> str:
    if spf.is_helo:
        return f"spf={spf.result}{_property('smtp.helo', spf.sender)}"
    shown = spf.sender if _SAFE.fullmatch(spf.sender) else spf.domain
    return f"spf={spf.result}{_property('smtp.mailfrom', shown)}"


def _dkim(dkim: DkimResult) -> str:
    return (
        f"dkim={dkim.result}{_reason(dkim.reason)}{_property('header.d', dkim.domain)}{_property('header.s', dkim.selector)}"
        f"{_property('header.a', dkim.algorithm)}{_property('header.b', dkim.signature)}"
    )


def _dmarc(dmarc: DmarcResult) -> str:
    comment = f" (p={dmarc.asked})" if dmarc.result in (Result.PASS, Result.FAIL) else ""
    return f"dmarc={dmarc.result}{comment}{_reason(dmarc.reason)}{_property('header.from', dmarc.author_domain)}"


def _property(name: str, value: str) -> str:
    """One property; a value that is more than a token is quoted, and cleaned."""
    if not value:
        return ""
    cut = value[:_MAX_VALUE]
    if _SAFE.fullmatch(cut) and ":" not in cut and "=" not in cut and "/" not in cut:
        return f" {name}={cut}"
    cleaned = "".join(character if " " <= character <= "~" and character not in '"\\' else "?" for character in cut)
    return f' {name}="{cleaned}"'


def _reason(text: str) -> str:
    return _property("reason", text[:_MAX_REASON])


def without_forged(message: bytes, own_names: Collection[str]) -> bytes:
    """`message` without the fields that claim one of `own_names`; itself when there is none."""
    pieces, kept = [], 0
    for start, end in _forged(message, own_names):
        pieces.append(message[kept:start])
        kept = end
    return b"".join((*pieces, message[kept:])) if pieces else message


def _forged(message: bytes, own_names: Collection[str]) -> Iterator[tuple[int, int]]:
    if message.startswith(b"\r\n"):
        return
    empty = _HEADER_END.search(message)
    header_end = empty.start() + 2 if empty else len(message)
    place = number = 0
    while (found := _FIELD.search(message, place, header_end)) is not None:
        following = _NEXT_FIELD.search(message, found.end(), header_end)
        place = following.end() if following else header_end
        number += 1
        claimed = authserv_id(message[found.end() : min(place, found.end() + _ID_OCTETS)]) if number <= _MAX_READ else None
        if claimed is None or claimed in own_names:
            yield found.start(), place


def authserv_id(value: bytes) -> str | None:
    """The authserv-id of a field's value, normalised; None when it cannot be read (section 2.2, and what lenient readers make of it)."""
    start = _past_blanks(value, 0)
    if start is None:
        return None
    if value[start : start + 1] == b'"':
        end = start + 1
        text = bytearray()
        while end < len(value) and value[end : end + 1] != b'"':
            end += value[end : end + 1] == b"\\"
            text += value[end : end + 1]
            end += 1
        if end >= len(value):
            return None
        end += 1
        raw = bytes(text)
    else:
        token = _TOKEN.match(value, start)
        if token is None:
            return None
        raw, end = token[0], token.end()
    rest = value[end : end + 1]
    if rest not in (b"", b" ", b"\t", b"\r", b"\n", b";", b"("):
        return None
    name = "".join(raw.decode("utf-8", "replace").split())
    try:
        return normalise_domain(name)
    except ValueError:
        return name.lower()


def _past_blanks(value: bytes, place: int) -> int | None:
    """Behind white space and comments, which nest; None when they do not end."""
    depth = 0
    while place < len(value):
        octet = value[place : place + 1]
        if octet == b"(":
            depth += 1
        elif octet == b")" and depth:
            depth -= 1
        elif octet == b"\\" and depth:
            place += 1
        elif not depth and octet not in b" \t\r\n":
            return place
        place += 1
    return None
