"""The two tables of a ZIP file (APPNOTE 6.3.10): the central directory at its end, and the local header in front of each file.

Some programs go by one, some by the other. Both are read here, as written; `zip_archive` compares them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from postern_screener.contents.entry import Content

END: Final = b"PK\x05\x06"
LOCAL: Final = b"PK\x03\x04"
SPANNED: Final = (b"PK\x07\x08", b"PK00")  # at the beginning: one of several pieces (section 8.5.3)
_CENTRAL: Final = b"PK\x01\x02"
_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_CENTRAL_RECORD: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL_RECORD: Final = struct.Struct("<4s5H3L2H")
_MAX_COMMENT: Final = 65535
_UNKNOWN: Final = 0xFFFFFFFF  # section 4.4.1.4: the true value is in the ZIP64 extra field
_MAX_ENDS: Final = 8
ENCRYPTED: Final = 1 << 0
SIZES_BEHIND: Final = 1 << 3
MASKED: Final = 1 << 13  # section 4.4.4: values in the local header are masked, the directory is encrypted


@dataclass(frozen=True, slots=True)
class Record:
    """What one of the tables says of a file."""

    names: tuple[str, ...]
    written_name: bytes
    flags: int
    method: int
    crc: int
    packed_bytes: int
    expanded_bytes: int
    at: int  # of the local header, for a record of the directory; of the data, for a local one


@dataclass(frozen=True, slots=True)
class Directory:
    """Where a central directory lies. `shift`: bytes in front of the archive that its offsets do not count."""

    start: int
    end: int
    shift: int
    is_one_of_many: bool  # the archive goes over several files


def find_directory(content: Content) -> Directory | None:
    """The last one that is there. None without any."""
    at = len(content)
    for _ in range(_MAX_ENDS):
        at = content.rfind(END, max(0, at - _MAX_COMMENT - _END.size), at)
        if at < 0:
            return None
        found = _directory(content, at)
        if found is not None:
            return found
    return None


def _directory(content: Content, at: int) -> Directory | None:
    if at + _END.size > len(content):
        return None
    _, disk, first_disk, _, entries, size, offset, _ = _END.unpack_from(content, at)
    is_one_of_many = (disk not in (0, 0xFFFF)) or (first_disk not in (0, 0xFFFF))
    end = at
    if _UNKNOWN in (size, offset) or entries == 0xFFFF:
        at64 = content.rfind(b"PK\x06\x06", max(0, at - 4096), at)
        if at64 >= 0 and at64 + _END64.size <= len(content):
            size, offset = _END64.unpack_from(content, at64)[8:10]
            end = at64
    if is_one_of_many or (size == 0 and entries == 0):
        return Directory(end, end, 0, is_one_of_many)
    for start in (end - size, offset):
        if 0 <= start < end and content[start : start + 4] == _CENTRAL:
            return Directory(start, end, start - offset if start != offset else 0, is_one_of_many=False)
    return None


def central_records(content: Content, directory: Directory) -> Iterator[Record]:
    """The records in the central directory."""
    at = directory.start
    while at + _CENTRAL_RECORD.size <= len(content) and content[at : at + 4] == _CENTRAL:
        record = _CENTRAL_RECORD.unpack_from(content, at)
        flags, method, crc, packed, expanded = record[3], record[4], record[7], record[8], record[9]
        name_length, extra_length, comment_length, offset = record[10], record[11], record[12], record[16]
        at += _CENTRAL_RECORD.size
        name = bytes(content[at : at + name_length])
        extra = bytes(content[at + name_length : at + name_length + extra_length])
        at += name_length + extra_length + comment_length
        expanded, packed, offset = _wide(extra, (expanded, packed, offset))
        yield Record(
            _names(name, extra, flags), name, flags, _method(method, extra), crc, packed, expanded, offset + directory.shift
        )


def local_record(content: Content, at: int) -> Record | None:
    """The local header at `at`, None when there is none."""
    if at < 0 or at + _LOCAL_RECORD.size > len(content) or content[at : at + 4] != LOCAL:
        return None
    _, _, flags, method, _, _, crc, packed, expanded, name_length, extra_length = _LOCAL_RECORD.unpack_from(content, at)
    at += _LOCAL_RECORD.size
    name = bytes(content[at : at + name_length])
    extra = bytes(content[at + name_length : at + name_length + extra_length])
    expanded, packed, _ = _wide(extra, (expanded, packed, 0))
    data = at + name_length + extra_length
    return Record(_names(name, extra, flags), name, flags, _method(method, extra), crc, packed, expanded, data)


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Extra fields: number and content (section 4.5)."""
    at = 0
    while at + 4 <= len(extra):
        number, length = struct.unpack_from("<HH", extra, at)
        yield number, extra[at + 4 : at + 4 + length]
        at += 4 + length


def _wide(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """ZIP64 (section 4.5.3): eight bytes for each value that is not in its place, in this order."""
    if _UNKNOWN not in values:
        return values
    data = next((data for number, data in _fields(extra) if number == 1), b"")
    found, at = [], 0
    for value in values:
        if value == _UNKNOWN and at + 8 <= len(data):
            found.append(int.from_bytes(data[at : at + 8], "little"))
            at += 8
        else:
            found.append(value)
    return found[0], found[1], found[2]


def _method(method: int, extra: bytes) -> int:
    """With AES (method 99) the one that is below it."""
    if method != 99:
        return method
    data = next((data for number, data in _fields(extra) if number == 0x9901), b"")
    return int.from_bytes(data[5:7], "little") if len(data) >= 7 else method


def _names(name: bytes, extra: bytes, flags: int) -> tuple[str, ...]:
    """Every name that some program would show: in the old code page, in UTF-8, and Info-ZIP's (section 4.6.9)."""
    names = []
    try:
        names.append(name.decode("utf-8"))
    except UnicodeDecodeError:
        names.append(name.decode("cp437"))
    if not flags & 0x800 and not name.isascii():
        names.append(name.decode("cp437"))
    names += [data[5:].decode("utf-8", "replace") for number, data in _fields(extra) if number == 0x7075 and len(data) > 5]
    return tuple(dict.fromkeys(names))
