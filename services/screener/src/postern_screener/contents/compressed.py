"""Single compressed streams: deflate, gzip, bzip2, xz and lzma, piece by piece within a budget.

Several streams one behind the other are one, as the tools of each format have it. What does not decompress any further is told, and what came
out before it is kept: readers show that, too.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from postern_screener.contents.budget import Budget
from postern_screener.contents.entry import Entry, ObstacleKind, Trouble

_PIECE: Final = 64 * 1024  # of input, since zlib copies what it has not used yet
_AT_ONCE: Final = 1024 * 1024  # of output
_DICTIONARIES_BYTES: Final = 128 * 1024 * 1024  # the largest preset of xz takes 65 MiB
_SUFFIXES: Final = {
    ".tgz": ".tar",
    ".taz": ".tar",
    ".tbz": ".tar",
    ".tbz2": ".tar",
    ".txz": ".tar",
    ".tlz": ".tar",
    ".tzst": ".tar",
    ".svgz": ".svg",
}
ERRORS: Final = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)


class Decompressor(Protocol):
    """What those of bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Inflator:
    """zlib's, in the same form. `window`: -15 for bare deflate, 31 for gzip."""

    def __init__(self, window: int) -> None:
        self._zlib = zlib.decompressobj(window)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max(max_length, 0))


def expand(source: memoryview, made: Callable[[], Decompressor], budget: Budget, *, again: bool) -> tuple[bytearray, int, str]:
    """What `source` expands to, how many of its bytes that took, and what was wrong ("" for nothing). With `again`, streams may follow
    each other. LimitError when it is too much."""
    expanded, at, decompressor, wrong = bytearray(), 0, made(), ""
    try:
        while True:
            piece = bytes(source[at : at + _PIECE]) if decompressor.needs_input else b""
            at += len(piece)
            came = decompressor.decompress(piece, _AT_ONCE)
            budget.spend(len(came))
            expanded += came
            if decompressor.eof:
                at -= len(decompressor.unused_data)
                # another stream begins as the first one did
                if not again or at >= len(source) or source[at : at + 3] != source[:3]:
                    break
                decompressor = made()
            elif not piece and not came and decompressor.needs_input:
                wrong = "it is broken off"
                break
    except ERRORS as error:
        wrong = f"it does not expand: {error}"
    return expanded, at, wrong


_MAKERS: Final[dict[str, Callable[[], Decompressor]]] = {
    "gzip": lambda: Inflator(31),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARIES_BYTES),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_DICTIONARIES_BYTES),
}
COMPRESSED: Final = frozenset(_MAKERS)


def open_compressed(kind: str, content: bytes | bytearray, name: str, budget: Budget) -> Iterator[Entry | Trouble]:
    """The one file in it, under the name that the stream gives it (gzip) and that which the archive's own name leaves."""
    with memoryview(content) as source:
        budget.entry()
        expanded, at, wrong = expand(source, _MAKERS[kind], budget, again=True)
        names = tuple(dict.fromkeys([without_suffix(name), *(_gzip_name(source) if kind == "gzip" else ())]))
        rest = bytes(source[at : at + _PIECE]).strip(b"\0")
    yield Entry(names, expanded)
    if wrong:
        yield Trouble(ObstacleKind.DAMAGED, f"{kind}: {wrong}")
    elif rest:
        yield Trouble(ObstacleKind.AMBIGUOUS, f"{kind}: something else stands behind the stream")


def without_suffix(name: str) -> str:
    """What a tool would call the file that it makes of `name`."""
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        return name
    return stem + _SUFFIXES.get(f".{suffix.lower()}", "")


def _gzip_name(source: memoryview) -> list[str]:
    """RFC 1952 section 2.3: FNAME, behind FEXTRA."""
    head = bytes(source[:1024])
    if len(head) < 10 or not head[3] & 8:
        return []
    at = 10
    if head[3] & 4:
        at += 2 + int.from_bytes(head[10:12], "little")
    end = head.find(b"\0", at)
    return [head[at:end].decode("latin-1")] if end > at else []
