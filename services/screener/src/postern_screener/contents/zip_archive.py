"""ZIP, in both readings: what the central directory lists, what the local headers say of the same files, and files that only they know.

Where the two disagree each is followed, and the archive is ambiguous. Data in front of the archive or behind it is nothing special: a picture or a
program with a ZIP behind it is both.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import Final

from postern_screener.contents.budget import Budget
from postern_screener.contents.compressed import Decompressor, Inflator, expand
from postern_screener.contents.entry import Content, Entry, ObstacleKind, Trouble
from postern_screener.contents.zip_directory import (
    ENCRYPTED,
    LOCAL,
    MASKED,
    SIZES_BEHIND,
    SPANNED,
    Record,
    central_records,
    find_directory,
    local_record,
)

_STORED: Final = 0
_MOST_NAMES: Final = 2000
_DICTIONARY_BYTES: Final = 64 * 1024 * 1024
_LZMA: Final = 14
_MAKERS: Final[dict[int, Callable[[], Decompressor]]] = {
    8: lambda: Inflator(-15),
    12: bz2.BZ2Decompressor,
    95: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * _DICTIONARY_BYTES),
}


def is_zip(content: Content) -> bool:
    """Whether some program would open it as a ZIP file, whatever it begins with."""
    return content[:4] == LOCAL or content[:4] in SPANNED or find_directory(content) is not None


def names_in(content: Content) -> Iterator[str]:
    """The first names in the directory, or in local headers where there is none; nothing is unpacked."""
    directory = find_directory(content)
    if directory is not None:
        for record in islice(central_records(content, directory), _MOST_NAMES):
            yield from record.names
        return
    at = content.find(LOCAL)
    for _ in range(_MOST_NAMES):
        local = local_record(content, at)
        if local is None:
            return
        yield from local.names
        at = content.find(LOCAL, local.at)


def open_zip(content: Content, budget: Budget) -> Iterator[Entry | Trouble]:
    """The files in it."""
    with memoryview(content) as view:
        yield from _Reading(content, view, budget).run()


class _Reading:
    def __init__(self, content: Content, view: memoryview, budget: Budget) -> None:
        self._content = content
        self._view = view
        self._budget = budget
        self._covered: list[
            tuple[int, int]
        ] = []  # what belongs to files that were read: from the local header to the end of the data

    def run(self) -> Iterator[Entry | Trouble]:
        directory = find_directory(self._content)
        if self._content[:4] in SPANNED or (directory is not None and directory.is_one_of_many):
            yield Trouble(ObstacleKind.MULTI_VOLUME, "zip: one of several volumes")
        if directory is None:
            yield Trouble(ObstacleKind.DAMAGED, "zip: its directory is missing")
        else:
            for record in central_records(self._content, directory):
                yield from self._listed(record)
            self._covered.append((directory.start, directory.end))
        yield from self._unlisted(is_listed=directory is not None)

    def _listed(self, record: Record) -> Iterator[Entry | Trouble]:
        """A file of the central directory, as both tables have it."""
        self._budget.entry()
        name = record.names[0]
        local = local_record(self._content, record.at)
        if local is None:
            yield Entry(record.names, None)
            yield Trouble(ObstacleKind.DAMAGED, "zip: what the directory lists is not there", name)
            return
        names = tuple(dict.fromkeys([*record.names, *local.names]))
        # method and packed bytes → checksum
        readings = {(record.method, record.packed_bytes): record.crc}
        if not local.flags & MASKED and _disagree(record, local):
            yield Trouble(ObstacleKind.AMBIGUOUS, "zip: the directory and the file's own header disagree", name)
            readings.setdefault((local.method, local.packed_bytes or record.packed_bytes), local.crc)
        # when only one of them says so, some programs will open it all the same
        is_encrypted = bool(record.flags & local.flags & ENCRYPTED) or bool(record.flags & MASKED)
        ends = []
        for (method, packed), crc in readings.items():
            end = yield from self._extract(names, local.at, method, packed, is_encrypted=is_encrypted, crc=crc)
            ends.append(end)
        # the least of what either says, so that nothing can be hidden in what is left
        self._covered.append((record.at, max(min(ends), local.at)))

    def _unlisted(self, *, is_listed: bool) -> Iterator[Entry | Trouble]:
        """Files whose local headers stand where no file of the directory is."""
        at, told = 0, not is_listed
        gaps = iter([*sorted(self._covered), (len(self._content), len(self._content))])
        for start, end in gaps:
            while (found := self._content.find(LOCAL, at, max(start, at))) >= 0:
                self._budget.check()
                record = local_record(self._content, found)
                at = found + 4
                if record is None or not _plausible(record):
                    continue
                self._budget.entry()
                if not told:
                    yield Trouble(ObstacleKind.AMBIGUOUS, "zip: it has files that its directory does not list", record.names[0])
                    told = True
                packed = None if record.flags & SIZES_BEHIND and not record.packed_bytes else record.packed_bytes
                is_encrypted = bool(record.flags & ENCRYPTED)
                at = yield from self._extract(
                    record.names, record.at, record.method, packed, is_encrypted=is_encrypted, crc=record.crc
                )
                at = max(at, found + 4)
            at = max(at, end)

    def _extract(
        self, names: tuple[str, ...], at: int, method: int, packed: int | None, *, is_encrypted: bool, crc: int
    ) -> Generator[Entry | Trouble, None, int]:
        """One file; returns where its data ends. Directories are no files."""
        end = len(self._content) if packed is None else min(at + packed, len(self._content))
        name = names[0]
        if packed == 0 and all(each.endswith(("/", "\\")) for each in names):
            return at
        content: Content | None = None
        if is_encrypted:
            yield Trouble(ObstacleKind.ENCRYPTED, "zip: encrypted", name)
        elif method == _STORED:
            content = bytes(self._view[at:end]) if packed is not None else b""
            if packed is None:
                yield Trouble(ObstacleKind.DAMAGED, "zip: nobody says where the file ends", name)
            self._budget.spend(len(content))
        elif (made := self._maker(method, at)) is None:
            yield Trouble(ObstacleKind.UNSUPPORTED, f"zip: method {method} is not opened", name)
        else:
            skipped = 4 + int.from_bytes(self._view[at + 2 : at + 4], "little") if method == _LZMA else 0
            content, taken, wrong = expand(self._view[at + skipped : end], made, self._budget, again=False)
            end = at + skipped + taken
            if wrong and (method != _LZMA or "broken off" not in wrong):
                yield Trouble(ObstacleKind.DAMAGED, f"zip: {wrong}", name)
        if content is not None and packed is not None and at + packed > len(self._content):
            yield Trouble(ObstacleKind.DAMAGED, "zip: it is broken off", name)
        elif content is not None and crc and zlib.crc32(content) != crc:
            yield Trouble(ObstacleKind.DAMAGED, "zip: a checksum is wrong", name)
        yield Entry(names, content)
        return end

    def _maker(self, method: int, at: int) -> Callable[[], Decompressor] | None:
        if method != _LZMA:
            return _MAKERS.get(method)
        head = bytes(self._view[at : at + 9])  # APPNOTE section 5.8.8: version, length 5, then LZMA's own properties
        if len(head) < 9 or head[2:4] != b"\5\0" or head[4] >= 9 * 5 * 5:
            return None
        dictionary = int.from_bytes(head[5:9], "little")
        if dictionary > _DICTIONARY_BYTES:
            return None
        properties = {"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096)}
        properties |= {"lc": head[4] % 9, "lp": head[4] // 9 % 5, "pb": head[4] // 45}
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[properties])


def _disagree(record: Record, local: Record) -> bool:
    if record.written_name != local.written_name or record.method != local.method:
        return True
    if (record.flags ^ local.flags) & ENCRYPTED:
        return True
    sizes_follow = local.flags & SIZES_BEHIND or (not local.packed_bytes and not local.crc)
    return not sizes_follow and (local.packed_bytes, local.crc) != (record.packed_bytes, record.crc)


def _plausible(record: Record) -> bool:
    """Whether a local header that nobody lists is one, and not four bytes of something else."""
    return (
        bool(record.written_name)
        and b"\0" not in record.written_name
        and (record.method in _MAKERS or record.method in (0, 9, 14, 93, 98, 99))
    )
