"""How often a message was here before, by the Received: fields that our gates put in front of it (trace.py). Pure.

A field is ours when it names one of our hosts behind `by`, has our comment, and an id that is a queue id. Other servers may have folded it anew or
changed the case of names. Whoever forges such fields loops for nobody but his own message. Nearly all mail was never here: it costs one
search of its header. Time is linear, whatever the header holds.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from typing import Final

from postern_smtp.trace import header_end

_MARK: Final = b"(Postern)"
_BEFORE: Final = re.compile(rb"\sby\s+([A-Za-z0-9._-]{1,253})\s+\Z")
_BEHIND: Final = re.compile(rb"\s+with\s[^;]{0,300}?\sid\s+[0-7][0-9abcdefghjkmnpqrstvwxyz]{25}[\s;]", re.IGNORECASE)
# around the mark; a field of ours is shorter than both together
_BEFORE_OCTETS: Final = 1000
_BEHIND_OCTETS: Final = 400
_MOST_MARKS: Final = 200  # looked at; a message with more is over any limit of hops


def count_own_passages(message: bytes, own_names: Container[str]) -> int:
    """How many of the Received: fields are those of a gate that has one of `own_names` (in lower case)."""
    end = header_end(message)
    if message.find(_MARK, 0, end) < 0:
        return 0
    return sum(name in own_names for name in _names(message, end))


def _names(message: bytes, end: int) -> Iterator[str]:
    position = -1
    for _ in range(_MOST_MARKS):
        position = message.find(_MARK, position + 1, end)
        if position < 0:
            return
        before = message[max(0, position - _BEFORE_OCTETS) : position]
        host = _BEFORE.search(before, max(0, len(before) - 300))
        if host is None or not _is_in_received(before, is_whole=len(before) == position):
            continue
        if _BEHIND.match(message, position + len(_MARK), min(end, position + _BEHIND_OCTETS)):
            yield host[1].decode("ascii").lower()


def _is_in_received(before: bytes, *, is_whole: bool) -> bool:
    """Whether the field that `before` ends in is a Received: field; `is_whole`: it begins where the message does."""
    lines = before.split(b"\n")
    for k, line in zip(range(len(lines) - 1, -1, -1), reversed(lines), strict=True):
        if line[:1] not in (b" ", b"\t"):
            return (k > 0 or is_whole) and line.partition(b":")[0].rstrip(b" \t").lower() == b"received"
    return False
