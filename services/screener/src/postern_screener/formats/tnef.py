"""TNEF, the winmail.dat of Outlook and Exchange (MS-OXTNEF): its files, and the texts of the message that is in it.

A stream of attributes, each with its length and a checksum; properties of MAPI in some of them. What is damaged is read as far as it goes, and said.
Known gap: values of MAPI that have more than one value are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from postern_screener.formats.member import Member, Unpacked
from postern_screener.formats.rtf import MAX_OCTETS, decompress, rtf_text

SIGNATURE: Final = b"\x78\x9f\x3e\x22"
MAX_FILES: Final = 500
_MAX_PROPERTIES: Final = 5000  # in a list
_CHECKED: Final = 65_536  # octets: longer attributes take too long to add up, and clients do not look at the sum
_SUBJECT, _BODY, _DATA, _TITLE, _TRANSPORT_NAME = 0x8004, 0x800C, 0x800F, 0x8010, 0x9001
_BEGIN_FILE, _MESSAGE_PROPERTIES, _FILE_PROPERTIES, _CODEPAGE = 0x9002, 0x9003, 0x9005, 0x9007
_KNOWN: Final = frozenset(
    (_SUBJECT, _BODY, _DATA, _TITLE, _TRANSPORT_NAME, _BEGIN_FILE, _MESSAGE_PROPERTIES, _FILE_PROPERTIES, _CODEPAGE)
)
# identities of properties, by MS-OXPROPS
_P_SUBJECT, _P_BODY, _P_RTF, _P_HTML = 0x0037, 0x1000, 0x1009, 0x1013
_P_FILE_DATA, _P_NAMES = 0x3701, (0x3707, 0x3704, 0x370C, 0x3001)
_FIXED: Final = {0x02: 4, 0x03: 4, 0x04: 4, 0x05: 8, 0x06: 8, 0x07: 8, 0x0A: 4, 0x0B: 4, 0x14: 8, 0x40: 8, 0x48: 16}
_STRING, _UNICODE, _BINARY, _OBJECT = 0x1E, 0x1F, 0x102, 0x0D
_INTERFACE_OCTETS: Final = 16  # in front of an object's data: which interface it has


class _DamagedError(ValueError):
    """The bytes end, or a length points behind them."""


def unpack_tnef(content: bytes) -> Unpacked:
    """Files as `tnef.1`, `tnef.2` …, texts as `tnef.subject`, `tnef.body`, `tnef.html`, `tnef.rtf`."""
    reading = _Reading()
    if not content.startswith(SIGNATURE):
        reading.found.damage.append("no TNEF in a part that says so")
        return reading.found
    try:
        for kind, data in _attributes(content):
            reading.take(kind, data)
    except _DamagedError as error:
        reading.found.damage.append(str(error))
    reading.end_file()
    return reading.found


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    position, is_whole = 6, True  # behind signature and key
    while position < len(content):
        if position + 9 > len(content):
            raise _DamagedError("winmail.dat ends in the middle of an attribute")
        level, kind, _, length = struct.unpack_from("<BHHI", content, position)
        position += 9
        data = content[position : position + length] if kind in _KNOWN else b""
        if level not in (1, 2) or position + length + 2 > len(content):
            if kind in _KNOWN:
                yield kind, data
            raise _DamagedError("winmail.dat ends in the middle of an attribute")
        if is_whole and 0 < len(data) <= _CHECKED:
            (checksum,) = struct.unpack_from("<H", content, position + length)
            is_whole = sum(data) % 0x10000 == checksum
        position += length + 2
        if kind in _KNOWN:
            yield kind, data
    if not is_whole:
        raise _DamagedError("an attribute of winmail.dat does not have its checksum")


class _Reading:
    """What the attributes make, in the order in which they come."""

    def __init__(self) -> None:
        self.found = Unpacked()
        self._codepage = "cp1252"
        self._files = 0
        self._names: list[str] = []
        self._data: list[bytes] = []

    def take(self, kind: int, data: bytes) -> None:
        if kind == _CODEPAGE and len(data) >= 4:
            self._codepage = f"cp{int.from_bytes(data[:4], 'little') % 100_000}"
        elif kind == _SUBJECT:
            self._text("subject", data, self._codepage)
        elif kind == _BODY:
            self._text("body", data, self._codepage)
        elif kind == _BEGIN_FILE:
            self.end_file()
        elif kind in (_TITLE, _TRANSPORT_NAME):
            self._name(data, self._codepage)
        elif kind == _DATA:
            self._data.append(data)
        elif kind == _MESSAGE_PROPERTIES:
            self._message_properties(data)
        elif kind == _FILE_PROPERTIES:
            self._file_properties(data)

    def end_file(self) -> None:
        """What was read since the last file began is one, if it has data or a name."""
        names, data = tuple(dict.fromkeys(self._names)), self._data or ([b""] if self._names else [])
        self._names, self._data = [], []
        for content in dict.fromkeys(data):
            self._files += 1
            if self._files > MAX_FILES:
                if self._files == MAX_FILES + 1:
                    self.found.damage.append(f"more than {MAX_FILES} files in winmail.dat")
                return
            kind = "application/ms-tnef" if content.startswith(SIGNATURE) else ""
            self.found.members.append(Member(f"tnef.{self._files}", content, names, kind))

    def _message_properties(self, data: bytes) -> None:
        for identity, kind, value in _properties(data):
            charset = "utf-16-le" if kind == _UNICODE else self._codepage
            if identity == _P_SUBJECT:
                self._text("subject", value, charset)
            elif identity == _P_BODY:
                self._text("body", value, charset)
            elif identity == _P_HTML:
                self._text("html", value, "utf-16-le" if kind == _UNICODE else "", "text/html")
            elif identity == _P_RTF:
                source, is_whole = decompress(value)
                self._text("rtf", rtf_text(source).encode("utf-8", "replace"), "utf-8", "text/html")
                if not is_whole:
                    self.found.damage.append(f"the text in winmail.dat is damaged, or has more than {MAX_OCTETS} octets")

    def _file_properties(self, data: bytes) -> None:
        for identity, kind, value in _properties(data):
            if identity in _P_NAMES:
                self._name(value, "utf-16-le" if kind == _UNICODE else self._codepage)
            elif identity == _P_FILE_DATA:
                self._data.append(value[_INTERFACE_OCTETS:] if kind == _OBJECT else value)

    def _text(self, label: str, data: bytes, charset: str, media_type: str = "text/plain") -> None:
        data = data.removesuffix(b"\x00\x00") if charset == "utf-16-le" else data.rstrip(b"\x00")
        if data:
            self.found.members.append(Member(f"tnef.{label}", data, (), media_type, charset))

    def _name(self, data: bytes, charset: str) -> None:
        try:
            name = data.decode(charset, "replace")
        except LookupError:
            name = data.decode("cp1252", "replace")
        if name := name.rstrip("\x00"):
            self._names.append(name)


def _properties(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Identity, type and value of each property with one value of a length of its own (strings, binaries, objects)."""
    (count,), position = _read("<I", data, 0), 4
    for _ in range(min(count, _MAX_PROPERTIES)):
        kind, identity = _read("<HH", data, position)
        position += 4
        if identity >= 0x8000:
            position = _behind_name(data, position)
        several, kind = bool(kind & 0x1000), kind & ~0x1000
        if kind in _FIXED and not several:
            position += _FIXED[kind]
            continue
        (values,) = _read("<I", data, position)
        position += 4
        if kind in _FIXED:
            position += values * _FIXED[kind]
            continue
        if kind not in (_STRING, _UNICODE, _BINARY, _OBJECT):
            raise _DamagedError(f"a property of type {kind:#x} in winmail.dat")
        for _ in range(min(values, _MAX_PROPERTIES)):
            (length,) = _read("<I", data, position)
            value = data[position + 4 : position + 4 + length]
            position += 4 + length + -length % 4
            yield identity, kind, value
            if len(value) < length:
                raise _DamagedError("a property of winmail.dat is cut off")


def _behind_name(data: bytes, position: int) -> int:
    """Behind the name of a named property: a set, and a number or a string."""
    (is_string,) = _read("<I", data, position + 16)
    if not is_string:
        return position + 24
    (length,) = _read("<I", data, position + 20)
    return position + 24 + length + -length % 4


def _read(form: str, data: bytes, position: int) -> tuple[int, ...]:
    if position + struct.calcsize(form) > len(data):
        raise _DamagedError("a property of winmail.dat is cut off")
    return struct.unpack_from(form, data, position)
