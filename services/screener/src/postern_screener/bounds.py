"""Bounds on what a message may cost before it is given to the parser: of some things its time grows faster than the message.

Each look is cheap for honest mail: short messages can cost little and are not looked at, and what has to be counted begins with an octet that base64
does not have, for which a search runs at memory speed.
"""

from __future__ import annotations

import re
from typing import Final

MAX_ENCODED_WORDS: Final = 2000  # a line; the parser's time grows with their square
MAX_ALL_ENCODED_WORDS: Final = 500_000
MAX_HEADER_LINES: Final = 20_000  # of a message
MAX_DELIMITERS: Final = 200_000  # lines that begin with two hyphens
ENDLESS_LINE: Final = 512 * 1024  # octets; RFC 5322 section 2.1.1 allows 998, and honest mail has a few thousand at times
MAX_FIELDS: Final = 50_000  # header fields of all parts together
_SHORT: Final = 1024 * 1024  # octets; nothing below is worth a look at delimiters and embedded messages
_FEW: Final = 2000
_MOST_COPIED: Final = 256 * 1024 * 1024  # octets that the parser may copy: it copies a message for each message that it lies in
_EMBEDDED: Final = re.compile(rb"message/rfc822", re.IGNORECASE)


def too_costly(raw: bytes) -> str:
    """Why the parser would take too long over it, as a sentence; "" when it would not."""
    if _has_more(raw, b"?", b"=?", MAX_ENCODED_WORDS):
        if any(line.count(b"=?") > MAX_ENCODED_WORDS for line in raw.split(b"\n")):
            return f"more than {MAX_ENCODED_WORDS} encoded words in a line"
        if raw.count(b"=?") > MAX_ALL_ENCODED_WORDS:
            return f"more than {MAX_ALL_ENCODED_WORDS} encoded words"
    if len(raw) > 4 * MAX_HEADER_LINES:
        blank_line = raw.find(b"\r\n\r\n")
        if raw.count(b"\n", 0, len(raw) if blank_line < 0 else blank_line) > MAX_HEADER_LINES:
            return f"more than {MAX_HEADER_LINES} lines in the header"
    if len(raw) > _SHORT:
        if _has_more(raw, b"-", b"\n--", MAX_DELIMITERS):
            return f"more than {MAX_DELIMITERS} lines that may be delimiters"
        if _has_more(raw, b":", b":", MAX_FIELDS) and _has_long_part_header(raw):
            return f"more than {MAX_FIELDS} lines in the header of a part"
    return ""


def opened_one_by_one(raw: bytes) -> bytes:
    """`raw`, or where messages may lie in one another so deep that the parser would copy more than can be borne, `raw` with their type changed to
    one that it leaves closed (RFC 6532): whoever opens them then knows how much he has opened."""
    bearable = _MOST_COPIED // max(len(raw), 1)
    if len(raw) <= _SHORT or not _has_more_types(raw, bearable) or raw.lower().count(b"message/rfc822") <= bearable:
        return raw
    return _EMBEDDED.sub(b"message/global", raw)  # of the same length, so that every offset stays


def _has_long_part_header(raw: bytes) -> bool:
    """Behind some line that may be a delimiter; each octet is looked at once."""
    at = raw.find(b"\n--")
    while at >= 0:
        blank_line = raw.find(b"\r\n\r\n", at)
        end = len(raw) if blank_line < 0 else blank_line + 3
        if raw.count(b"\n", at, end) > MAX_FIELDS:
            return True
        at = raw.find(b"\n--", end)
    return False


def has_endless_line(raw: bytes) -> bool:
    """Whether a line is longer than ENDLESS_LINE; found for certain from twice that on."""
    return any(raw.find(b"\n", at, at + ENDLESS_LINE) < 0 for at in range(0, len(raw) - ENDLESS_LINE, ENDLESS_LINE))


def _has_more(raw: bytes, octet: bytes, text: bytes, most: int) -> bool:
    """Whether `text`, which has that octet in it, is there more than `most` times. To count it takes a nanosecond an octet, to find an octet a
    twentieth of that: where there are few, nothing is counted."""
    at = -1
    for _ in range(min(most, _FEW) + 1):
        if (at := raw.find(octet, at + 1)) < 0:
            return False
    return raw.count(text) > most


def _has_more_types(raw: bytes, most: int) -> bool:
    """Whether more than `most` fields may say what a part is; True, too, when there is too much that could be a field."""
    at, types = -1, 0
    for _ in range(_FEW):
        if (at := raw.find(b":", at + 1)) < 0:
            return False
        types += raw[max(at - 16, 0) : at].rstrip()[-4:].lower() == b"type"
        if types > most:
            return True
    return True
