"""Text of a multipart that lies outside its parts: before the first delimiter and behind the last (RFC 2046 section 5.1.1, preamble and epilogue).

MIME readers do not show it; readers without MIME, and those that find the boundary elsewhere, do. It is screened as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_BOUNDARY: Final = re.compile(r"""boundary\s*+=\s*+(?:"([^"]*+)|([^\s;"]++))""", re.IGNORECASE)
_MOST_SEARCHED: Final = 4  # times the message, to find where multiparts in multiparts end
_USUAL: Final = frozenset((b"", b"This is a multi-part message in MIME format.", b"This is a multi-part message in MIME format"))


class Multipart(NamedTuple):
    """One multipart that has parts."""

    path: str  # "" for that of the message itself
    content_type: str
    message: bytes  # that it is a part of
    is_root: bool  # of that message
    octets: int  # its end lies at least so far behind its first delimiter


def outside_texts(multiparts: Sequence[Multipart]) -> list[tuple[str, bytes]]:
    """`preamble` and `epilogue`, with the number of their multipart in front, where there is text in them."""
    texts: list[tuple[str, bytes]] = []
    message, position, left = b"", 0, 0
    delimiters: dict[str, bytes] = {}
    for multipart in multiparts:
        if multipart.message is not message:
            message, position, left = multipart.message, 0, _MOST_SEARCHED * len(multipart.message)
        found = _BOUNDARY.search(multipart.content_type)
        if found is None or left < 0:
            continue
        delimiter = delimiters[multipart.path] = b"\n--" + (found[1] or found[2] or "").encode("utf-8", "replace")
        # multiparts come in order: the first delimiter of each lies behind that of the one before
        first = message.find(delimiter, position)
        if first < 0:
            left -= len(message) - position
            continue
        position = first
        outer = b"" if multipart.is_root else delimiters.get(multipart.path.rpartition(".")[0], b"\n--")
        if preamble := _preamble(message, message.rfind(outer, 0, first) + 1 if outer else 0, first):
            texts.append((f"{multipart.path}.preamble" if multipart.path else "preamble", preamble))
        close = message.find(delimiter + b"--", first + multipart.octets)
        left -= (close if close >= 0 else len(message)) - first
        if close >= 0 and (epilogue := _epilogue(message, close + len(delimiter) + 2, outer)):
            texts.append((f"{multipart.path}.epilogue" if multipart.path else "epilogue", epilogue))
    return texts


def _preamble(message: bytes, begin: int, first: int) -> bytes:
    """Behind the header that begins at `begin`, up to the first delimiter."""
    blank = message.find(b"\n\r\n", begin, first)
    if blank < 0:
        blank = message.find(b"\n\n", begin, first)  # lines of an embedded message may end in LF alone
    if blank < 0 or first - blank < 4:
        return b""
    text = message[blank:first].strip()
    return b"" if text in _USUAL else text


def _epilogue(message: bytes, behind: int, outer: bytes) -> bytes:
    """From behind the last delimiter to the next one of the multipart around this one, or the end."""
    end = message.find(outer, behind) if outer else -1
    return message[behind : end if end >= 0 else len(message)].strip()
