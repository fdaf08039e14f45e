"""OLE2 compound files ([MS-CFB]): doc, xls, ppt, msg, msi, and the covers of encrypted OOXML documents. As much as is needed to know them by.

Reads the directory and the beginnings of streams by the file's own tables, within bounds; what is damaged reads as far as it goes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from postern_screener.contents.entry import Content

MAGIC: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HEADER_BYTES: Final = 512
_ENTRY_BYTES: Final = 128
_LAST_SECTOR: Final = 0xFFFFFFFA  # numbers from here on are marks: the end of a chain, free, a table's own
_MOST_SECTORS: Final = 4096  # of a chain
_MOST_ENTRIES: Final = 4096
_SMALL_STREAM_BYTES: Final = 4096  # below it a stream lies in the mini stream


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A storage or a stream."""

    name: str  # in lower case: names are compared so
    is_stream: bool
    class_id: bytes
    start: int
    size: int


class CompoundFile:
    """Never raises for anything in `content`."""

    def __init__(self, content: Content) -> None:
        self._content = content
        header = bytes(content[:_HEADER_BYTES]).ljust(_HEADER_BYTES, b"\0")
        shift = int.from_bytes(header[30:32], "little")
        self._sector_bytes = 1 << shift if 7 <= shift <= 12 else 512
        # the first 109 sectors of the table of sectors stand in the header, the others are found by a chain of their own
        self._tables = list(struct.unpack_from("<109L", header, 76))
        following, count = struct.unpack_from("<2L", header, 68)
        for _ in range(min(count, 64)):
            sector = self._sector(following)
            if len(sector) < self._sector_bytes:
                break
            *tables, following = struct.unpack(f"<{self._sector_bytes // 4}L", sector)
            self._tables += tables
        self.entries = tuple(self._directory(int.from_bytes(header[48:52], "little")))

    @property
    def names(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self.entries)

    def beginning_of(self, name: str, size: int) -> bytes:
        """The first bytes of the first stream of this name; "" when it is not there or lies in the mini stream."""
        for entry in self.entries:
            if entry.is_stream and entry.name == name and entry.size >= _SMALL_STREAM_BYTES:
                found = bytearray()
                for sector in self._chain(entry.start):
                    found += sector
                    if len(found) >= size:
                        break
                return bytes(found[: min(size, entry.size)])
        return b""

    def _sector(self, number: int) -> bytes:
        if number >= _LAST_SECTOR:
            return b""
        start = (number + 1) * self._sector_bytes
        return bytes(self._content[start : start + self._sector_bytes])

    def _next(self, number: int) -> int:
        each = self._sector_bytes // 4
        table, place = divmod(number, each)
        if table >= len(self._tables):
            return _LAST_SECTOR
        start = (self._tables[table] + 1) * self._sector_bytes + 4 * place
        return int.from_bytes(self._content[start : start + 4] or b"\xff\xff\xff\xff", "little")

    def _chain(self, number: int) -> Iterator[bytes]:
        for _ in range(_MOST_SECTORS):
            sector = self._sector(number)
            if not sector:
                return
            yield sector
            number = self._next(number)

    def _directory(self, start: int) -> Iterator[DirectoryEntry]:
        seen = 0
        for sector in self._chain(start):
            for at in range(0, len(sector) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
                seen += 1
                if seen > _MOST_ENTRIES:
                    return
                record = sector[at : at + _ENTRY_BYTES]
                kind = record[66]
                if kind not in (1, 2, 5):
                    continue
                length = min(max(int.from_bytes(record[64:66], "little") - 2, 0), 64)
                name = record[:length].decode("utf-16-le", "replace").lower()
                first, size = struct.unpack_from("<LL", record, 116)
                yield DirectoryEntry(name, kind == 2, record[80:96], first, size)


def mentions(content: Content, name: str) -> bool:
    """Whether anything in it may be a storage or a stream of this name, however its tables are damaged: in any case of letters."""
    return content.lower().find(name.lower().encode("utf-16-le")) >= 0
