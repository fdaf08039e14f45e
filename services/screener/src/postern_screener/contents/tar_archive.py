"""tar: ustar, GNU and pax forms and their forebears (POSIX.1-1988 and -2001), read where they lie.

Blocks of nothing do not end it: archives that were put one behind the other are read whole, as `tar --ignore-zeros` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from postern_screener.contents.budget import Budget
from postern_screener.contents.entry import Content, Entry, ObstacleKind, Trouble

_BLOCK: Final = 512
_NOTHING: Final = bytes(_BLOCK)
_PAX_PATH: Final = re.compile(rb"\d{1,8} path=([^\n]{1,4096})\n")
_FILES: Final = frozenset(b"0\x007S")


def is_header(block: bytes) -> bool:
    """Whether a block of 512 bytes is a header: its checksum is right, in one of the two ways in which it is summed up."""
    if len(block) < _BLOCK or not block[0]:
        return False
    field = block[148:156].strip(b" \0")
    if not field or not field.isdigit() or len(field) > 7 or b"8" in field or b"9" in field:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(rest)
    return int(field, 8) in (unsigned, unsigned - 256 * sum(byte > 127 for byte in rest))


def open_tar(content: Content, budget: Budget) -> Iterator[Entry | Trouble]:
    """The files in it."""
    at, long_names, ended = 0, [], False
    while at + _BLOCK <= len(content):
        block = bytes(content[at : at + _BLOCK])
        at += _BLOCK
        if block == _NOTHING:
            ended = True
            at = _behind_nothing(content, at)
            continue
        if not is_header(block):
            if not ended:
                yield Trouble(ObstacleKind.DAMAGED, "tar: a header is broken")
            elif any(content[at - _BLOCK :]):
                yield Trouble(ObstacleKind.AMBIGUOUS, "tar: something else stands behind its end")
            return
        ended = False
        budget.entry()
        size, kind = _number(block[124:136]), block[156]
        data = content[at : at + size]
        if kind in b"LKxg":  # these are about the next one
            long_names += _long_names(kind, data)
        elif kind == ord("S"):  # GNU's sparse files: what is there of them, behind more headers
            while at + _BLOCK <= len(content) and block[482 if block[156:157] == b"S" else 504]:
                block = bytes(content[at : at + _BLOCK])
                at += _BLOCK
            data = content[at : at + size]
        names = tuple(dict.fromkeys([*long_names, _name(block)]))
        if kind in _FILES or (kind not in b"123456LKxg" and size):
            budget.spend(len(data))
            yield Entry(names, data)
            if len(data) < size:
                yield Trouble(ObstacleKind.DAMAGED, "tar: it is broken off", names[0])
        if kind not in b"LKxg":
            long_names = []
        at += -(-size // _BLOCK) * _BLOCK
    if at > len(content) + _BLOCK:
        yield Trouble(ObstacleKind.DAMAGED, "tar: it is broken off")


def _behind_nothing(content: Content, at: int) -> int:
    """The next block with something in it: by halves, since a tape may end with megabytes of nothing."""
    step = _BLOCK
    while (
        at < len(content) and not any(content[at : at + 1]) and bytes(content[at : at + step]) == bytes(step)[: len(content) - at]
    ):
        at += step
        step = min(step * 2, 1 << 20)
    return min(at, len(content)) // _BLOCK * _BLOCK


def _number(field: bytes) -> int:
    """Octal, or base 256 with the first bit set. What is none counts as nothing."""
    if field[0] & 0x80:
        return min(int.from_bytes(bytes([field[0] & 0x7F]) + field[1:]), 1 << 62)
    text = field.strip(b" \0").split(b"\0")[0]
    try:
        return max(int(text, 8), 0) if text else 0
    except ValueError:
        return 0


def _name(block: bytes) -> str:
    name, prefix = _text(block[:100]), _text(block[345:500]) if block[257:262] == b"ustar" and block[262] == 0 else ""
    return f"{prefix}/{name}" if prefix else name


def _long_names(kind: int, data: Content) -> list[str]:
    if kind == ord("L"):
        return [_text(bytes(data[:8192]))]
    if kind in b"xg":
        return [found.decode("utf-8", "replace") for found in _PAX_PATH.findall(data[:65536])[:8]]
    return []


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "replace")
