"""Archives that begin somewhere in something else, as in a program that unpacks itself: RAR and 7z, looked for in one pass.

By hyperscan, which goes through a picture or a film several times as fast as `bytes.find` does for either of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

import hyperscan

from postern_screener.contents.entry import Content

_MAGIC: Final = {"rar": b"Rar!\x1a\x07", "7z": b"7z\xbc\xaf\x27\x1c"}
_NAMES: Final = tuple(_MAGIC)
_LOCAL: Final = threading.local()


def embedded_in(content: Content) -> Iterator[str]:
    """Which kinds begin somewhere in it."""
    found: set[int] = set()

    def on_match(kind: int, _start: int, _end: int, _flags: int, _context: object) -> None:
        found.add(kind)

    if content:
        # its stub knows no bytearray, its code takes any buffer
        _DATABASE.scan(content, match_event_handler=on_match, scratch=_scratch())  # type: ignore[type-var]
    yield from (name for kind, name in enumerate(_NAMES) if kind in found)


def embedded_at(kind: str, content: Content) -> int:
    """Where an archive of this kind begins in something else; 0 when it does not."""
    return max(content.find(_MAGIC[kind]), 0) if kind in _MAGIC else 0


def _compiled() -> hyperscan.Database:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=[b"".join(b"\\x%02x" % byte for byte in magic) for magic in _MAGIC.values()],
        ids=list(range(len(_MAGIC))),
        elements=len(_MAGIC),
        flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(_MAGIC),
    )
    return database


def _scratch() -> hyperscan.Scratch:
    """Each thread needs its own."""
    scratch: hyperscan.Scratch | None = getattr(_LOCAL, "scratch", None)
    if scratch is None:
        scratch = _LOCAL.scratch = hyperscan.Scratch(_DATABASE)
    return scratch


_DATABASE: Final = _compiled()
