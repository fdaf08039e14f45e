"""A second, tolerant reading of a message that readers may take for different ones: everything that some client might show of it.

The first reading follows the standards, and one parser. Where that found a defect, this one takes nothing for granted: a header goes on behind a
line that is no field; every Content-Type, transfer encoding and charset that is given counts; a part begins behind each line that a declared
boundary makes a delimiter, and also behind every line that only looks like one, so that parts in a preamble, behind the last delimiter, or of a
multipart without a boundary are found at any depth; what is encoded and called multipart or message is decoded and read in its turn. Rules judge
both readings together.

One pass for each way of splitting, no recursion; bounded by the octets that it puts into leaves, whatever is in the message. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from postern_screener.charsets import decode_text, decode_transfer, transfer_encoding
from postern_screener.defects import MEDIA_TYPE, Fields
from postern_screener.encoded_words import decode_leniently
from postern_screener.filenames import parameters

MAX_LEAVES: Final = 2000
_MAX_DELIMITERS: Final = 10_000  # in one buffer
_MAX_TYPES: Final = 4  # of one part, and charsets
_MAX_HEADER: Final = 256 * 1024  # octets of one header
_MAX_FIELDS: Final = 5000  # of one header
_MAX_FIELD: Final = 64 * 1024  # characters of one
_MAX_BOUNDARY: Final = 250  # octets; RFC 2046 section 5.1.1 allows 70
_SPARE: Final = 64 * 1024  # octets in leaves, for short messages
_MANY: Final = 8 * 1024 * 1024  # octets: messages up to this are read up to eight times, others twice and this
_LEAF: Final = 64  # octets that one costs beside its content
_ENCODED: Final = frozenset({"base64", "quoted-printable"})
_OPENED: Final = frozenset({"message/rfc822", "message/global", "message/news"})
_TYPE: Final = re.compile(r"(?<![a-z0-9!#$&^_.+-])" + MEDIA_TYPE.pattern)  # tried at the beginning of a run only: linear
_FIELD: Final = re.compile(rb"[!-9;-~\x80-\xff\x00]++[ \t]*+:")
_FIELD_OR_BLANK: Final = re.compile(rb"\r?\n|\Z|[!-9;-~]{1,80}+[ \t]*+:")
_BARE_CR: Final = re.compile(rb"\r(?!\n)")  # for some readers it ends a line
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_BOUNDARY: Final = re.compile(rb"""boundary\s*+=\s*+(?:"([^"\n]*+)|([^\s;"]++))""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One way in which some client may show a piece of the message."""

    path: str
    media_type: str
    fields: Fields  # its own, the Content-Type of this reading first; without a transfer encoding
    content: bytes  # decoded


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found."""

    fields: Fields  # of the message, decoded
    headers: tuple[tuple[str, str], ...]  # path and text of each message's header, the outermost first
    leaves: tuple[Leaf, ...]
    is_whole: bool  # False: there was more than is looked at


@dataclass(frozen=True, slots=True)
class _Header:
    """A header that goes on up to the first blank line."""

    fields: list[tuple[str, str]]
    body: int  # where the body begins
    strayed: int | None  # where the body begins for readers who stop at a line that is no field
    is_whole: bool


def read_again(raw: bytes) -> Reading:
    """See the module."""
    return _Reader(raw).run()


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._buffers: list[tuple[bytes, bool]] = [(raw, True)]  # not read yet; whether it begins with a header
        self._left = min(8 * len(raw), 2 * len(raw) + _MANY) + _SPARE
        self._boundaries: set[bytes] = set()
        self._fields = Fields({})
        self._headers: list[tuple[str, str]] = []
        self._leaves: list[Leaf] = []
        self._seen: set[tuple[str, str, str, bytes]] = set()
        self._is_whole = True

    def run(self) -> Reading:
        while self._buffers and self._left > 0 and len(self._leaves) < MAX_LEAVES:
            buffer, has_header = self._buffers.pop(0)
            self._read(buffer, has_header=has_header)
        whole = self._is_whole and not self._buffers and self._left > 0 and len(self._leaves) < MAX_LEAVES
        return Reading(self._fields, tuple(self._headers), tuple(self._leaves), whole)

    def _read(self, buffer: bytes, *, has_header: bool) -> None:
        found = islice(_BOUNDARY.finditer(buffer), _MAX_DELIMITERS)
        self._boundaries.update((match[1] or match[2] or b"").rstrip() for match in found)
        self._boundaries.discard(b"")
        if has_header:
            self._read_entity(buffer, 0, len(buffer), is_message=True)
        else:
            self._add((), buffer)
        lines = list(_dash_lines(buffer))
        if len(lines) > _MAX_DELIMITERS:
            lines, self._is_whole = lines[:_MAX_DELIMITERS], False
        declared = [(start, end) for start, end in lines if self._is_declared(buffer[start:end])]
        likely = [(start, end) for start, end in lines if end - start < _MAX_BOUNDARY and _FIELD_OR_BLANK.match(buffer, end)]
        for delimiters in (declared, likely) if declared != likely else (declared,):
            if not delimiters:
                continue
            ends = [*(start for start, _ in delimiters[1:]), len(buffer)]
            if has_header:
                self._read_entity(buffer, 0, delimiters[0][0], is_message=True)
            for (_, begin), end in zip(delimiters, ends, strict=True):
                self._read_entity(buffer, begin, end, is_message=False)

    def _is_declared(self, line: bytes) -> bool:
        mark = line[2:].rstrip()
        return mark in self._boundaries or (mark.endswith(b"--") and mark[:-2] in self._boundaries)

    def _read_entity(self, buffer: bytes, start: int, end: int, *, is_message: bool) -> None:
        """A header and what follows it up to `end`; then the messages that it is, one in another."""
        outermost = is_message and start == 0 and not self._headers
        while start < end and self._left > 0 and len(self._leaves) < MAX_LEAVES:
            header = _header(buffer, start, end)
            self._left -= header.body - start + _LEAF
            self._is_whole = self._is_whole and header.is_whole
            if is_message:
                self._tell(header.fields, is_outermost=outermost)
            outermost = False
            types = _types(_values(header.fields, "content-type"))
            if header.strayed is not None:
                self._add((), buffer[header.strayed : end])
                self._read_body(header.fields, types, buffer, header.strayed, end)
            if not self._read_body(header.fields, types, buffer, header.body, end):
                return
            start, is_message = header.body, True

    def _read_body(self, fields: Sequence[tuple[str, str]], types: Sequence[str], buffer: bytes, start: int, end: int) -> bool:
        """Its leaves; whether what follows is (also) a message with a header of its own."""
        encodings = {transfer_encoding(value) for value in _values(fields, "content-transfer-encoding")}
        opens = not _OPENED.isdisjoint(types)
        is_multipart = any(each.startswith("multipart/") for each in types)
        raw: bytes | None = None
        if (len(encodings) != 1 or not encodings <= _ENCODED) and (not opens or len(types) > 1):
            raw = buffer[start:end]
            self._add(fields, raw, types)
        for encoding in sorted(encodings & _ENCODED):
            if self._left <= 0:
                break
            self._left -= 2 * (end - start)  # decoding costs more than a search, and of much nothing may be left
            decoded = decode_transfer(buffer[start:end] if raw is None else raw, encoding)
            self._add(fields, decoded, types)
            if opens and b"\r" in decoded and (lines := _BARE_CR.sub(b"\r\n", decoded)) != decoded:
                self._left -= len(lines)
                self._buffers.append((lines, True))
            if opens or is_multipart:
                if encoding == "quoted-printable":
                    # what ends this piece may be a delimiter inside of what is encoded: it is left as it is
                    self._left -= len(buffer) - start
                    decoded = decode_transfer(buffer[start:], encoding)
                self._buffers += [(decoded, begins) for begins in sorted({opens, not is_multipart})]
        return opens

    def _add(self, fields: Iterable[tuple[str, str]], content: bytes, types: Sequence[str] = ("text/plain",)) -> None:
        """A leaf for each type and charset that makes a difference."""
        self._left -= len(content) // 8 + 1
        if not content.strip() and not any("name" in value.lower() for _, value in fields):
            return
        own = Fields({})
        for name, value in fields:
            if name.startswith("content-") and name != "content-transfer-encoding":
                own.by_name.setdefault(name, []).append(value)
        written = own.by_name.get("content-type", [])
        charsets = [charset.lower() for value in written for name, charset in parameters(value) if name == "charset"]
        names = "\n".join([*written, *own.by_name.get("content-disposition", [])])
        for media_type in _shown(types):
            is_text = media_type.startswith("text/")
            for charset in list(dict.fromkeys(charsets))[:_MAX_TYPES] or [""] if is_text else [""]:
                key = (media_type, charset, names, content)
                if key in self._seen or self._left <= 0 or len(self._leaves) >= MAX_LEAVES:
                    continue
                self._seen.add(key)
                self._left -= len(content) + _LEAF
                mine = Fields({})
                chosen = f'{media_type}; charset="{charset}"' if charset else media_type
                mine.by_name = own.by_name | {"content-type": [chosen, *written]}
                self._leaves.append(Leaf(f"~{len(self._leaves) + 1}", media_type, mine, content))

    def _tell(self, fields: Sequence[tuple[str, str]], *, is_outermost: bool) -> None:
        text = "\n".join(f"{name}: {value}" for name, value in fields)
        part = "~header" if is_outermost else f"~{len(self._leaves) + 1}.header"
        if not text or any(text == told for _, told in self._headers[:1]):
            return
        self._left -= len(text)
        self._headers.append((part, text))
        if is_outermost:
            for name, value in fields:
                self._fields.by_name.setdefault(name, []).append(decode_leniently(value))


def _dash_lines(buffer: bytes) -> Iterator[tuple[int, int]]:
    """Beginning and end of each line that begins with two hyphens, up to one more than are looked at."""
    at = 0 if buffer.startswith(b"--") else buffer.find(b"\n--") + 1
    for _ in range(_MAX_DELIMITERS + 1):
        if at == 0 and not buffer.startswith(b"--"):
            return
        end = buffer.find(b"\n", at) + 1 or len(buffer)
        yield at, end
        at = end if buffer.startswith(b"--", end) else buffer.find(b"\n--", end) + 1
        if at == 0:
            return


def _header(buffer: bytes, start: int, end: int) -> _Header:
    """The header that begins at `start`."""
    first = re.compile(rb"\r?\n").match(buffer, start, end)
    if first is not None:
        return _Header([], first.end(), None, is_whole=True)
    blank = _BLANK_LINE.search(buffer, start, end)
    stop = end if blank is None else blank.start() + 1
    body = end if blank is None else blank.end()
    is_whole = stop - start <= _MAX_HEADER
    fields: list[list[bytes]] = []
    strayed: int | None = None
    at = start
    for line in buffer[start : min(stop, start + _MAX_HEADER)].split(b"\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1].append(line.rstrip(b"\r"))
        elif _FIELD.match(line):
            if len(fields) >= _MAX_FIELDS:
                is_whole = False
                break
            fields.append([line.rstrip(b"\r")])
        elif line.strip() and strayed is None:
            strayed = at
        at += len(line) + 1
    return _Header([_field(lines) for lines in fields], body, strayed, is_whole)


def _field(lines: list[bytes]) -> tuple[str, str]:
    name, _, value = b"".join(lines)[:_MAX_FIELD].partition(b":")
    return name.replace(b"\0", b"").strip().lower().decode("latin-1"), decode_text(value.replace(b"\0", b" "), "utf-8").strip()


def _values(fields: Iterable[tuple[str, str]], name: str) -> list[str]:
    return [value for found, value in fields if found == name]


def _types(values: Sequence[str]) -> list[str]:
    """Every media type that some reader may make of these Content-Type fields."""
    found: list[str] = []
    for value in values:
        lowered = value.lower()
        written = "/".join(piece.strip() for piece in _without_comments(lowered).partition(";")[0].split("/"))
        found += _TYPE.findall(written) or (["multipart/mixed"] if "multipart" in written else [])
        if "(" in lowered:
            found += _TYPE.findall(lowered)
    return list(dict.fromkeys(found))[:_MAX_TYPES] or ["text/plain"]


def _without_comments(value: str) -> str:
    """Nested ones are gone whole (RFC 5322 section 3.2.2), one that does not end up to the end."""
    if "(" not in value:
        return value
    kept, depth = [], 0
    for piece in re.split(r"([()])", value):
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(depth - 1, 0)
        elif not depth:
            kept.append(piece)
    return " ".join(kept)


def _shown(types: Sequence[str]) -> list[str]:
    """Of these types, those that make a difference to a rule: HTML is read as plain text, too, and a multipart shows its text at least."""
    texts = [each for each in types if each.startswith("text/")]
    others = [each for each in types if not each.startswith(("text/", "multipart/", "message/"))]
    shown = [next((each for each in texts if each != "text/plain"), "text/plain")] if texts or not others else []
    return shown + others
