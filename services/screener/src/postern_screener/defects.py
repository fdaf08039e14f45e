"""Defects: places where mail clients are known to read another message than our parser does.

Two Content-Type fields, a multipart whose boundary never comes, a header field with a blank before its colon … Rules judge what was read;
a message with a defect that no rule decides is held, never passed.
Standards: RFC 5322 section 2.2, RFC 2045 sections 5 and 6, RFC 2046 section 5.
Known gap (todo): preamble and epilogue are looked at where the multipart is the whole of a message.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from postern_core.verdict import Unscannable
from postern_screener.charsets import transfer_encoding
from postern_screener.filenames import charsets_in, parameters

MAX_ADDRESSES: Final = 1000  # in one From field
MAX_FIELD_CHARACTERS: Final = 256 * 1024  # of a field that says what a part is: its parameters are looked at one by one
MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]++/[a-z0-9!#$&^_.+-]++")
_WRITTEN_TYPE: Final = re.compile(MEDIA_TYPE.pattern + r"(?=[\s,]|\Z)")
_BARE_TYPE: Final = re.compile(r"(?!multipart|message)[a-z0-9-]*")  # RFC 1049; clients take it for text
_OPAQUE_ENCODING: Final = re.compile(r"(?:x-)?(?:uu|yenc|binhex|macbinary)")
ELSEWHERE: Final = ("message/partial", "message/external-body")  # OLD-PRODUCT 2.11: no rule sees their content
_MAY_BE_EMPTY: Final = ("content-", "x-")  # fields of parts
_PART_FIELD: Final = re.compile(rb"^content-(?:type|disposition|transfer-encoding)[ \t]*+:", re.IGNORECASE | re.MULTILINE)
_SINGLE_FIELDS: Final = ("content-type", "content-transfer-encoding", "content-disposition")


@dataclass(frozen=True, slots=True)
class Defect:
    """One place where readers may disagree."""

    part: str
    reason: str  # one sentence for an administrator; what it says in the message's words stands in quotes, at the end
    kind: Unscannable = Unscannable.MALFORMED
    is_ambiguous: bool = True  # a second reading may find more


class Fields:
    """Header fields of one node by lower-case name, blanks around the name removed."""

    __slots__ = ("by_name",)

    def __init__(self, headers: Mapping[str, Sequence[str]]) -> None:
        self.by_name: dict[str, list[str]] = {}
        for name, values in headers.items():
            self.by_name.setdefault(name.strip().lower(), []).extend(values)

    def all(self, name: str) -> Sequence[str]:
        return self.by_name.get(name, ())

    def shorten(self) -> bool:
        """Cut the fields that say what a part is at MAX_FIELD_CHARACTERS; whether there was anything to cut."""
        found = False
        for name in _SINGLE_FIELDS:
            values = self.by_name.get(name)
            if values and max(map(len, values)) > MAX_FIELD_CHARACTERS:
                self.by_name[name] = [value[:MAX_FIELD_CHARACTERS] for value in values]
                found = True
        return found

    def first(self, name: str) -> str:
        values = self.by_name.get(name)
        return values[0] if values else ""


def without_comments(value: str) -> str:
    """A structured field without its comments; nested ones leave their outer halves."""
    if "(" not in value:
        return value
    return re.sub(r"\([^()]*\)", " ", value)


def header_defects(raw: bytes, fields: Fields) -> Iterator[str]:
    """What is wrong with the header of a message. A line without a colon ends it for the parser; others skip the line and read on."""
    if any(value.count("@") > MAX_ADDRESSES for value in fields.all("from")):
        yield f"more than {MAX_ADDRESSES} addresses in From"
    blank_line = raw.find(b"\r\n\r\n")
    if blank_line <= 0:
        return
    block = raw[:blank_line]
    lines = block.count(b"\n") + 1 - block.count(b"\n ") - block.count(b"\n\t")
    if sum(map(len, fields.by_name.values())) < lines:
        yield "a line in the header is no header field"


def part_header_defects(headers: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What is wrong with the header of a part. The parser takes a line without a colon for a field of nothing; for others the body begins there."""
    if any("" in values and not name.lower().startswith(_MAY_BE_EMPTY) for name, values in headers.items()):
        yield "a line in the header of a part is no header field"


def boundaries_in(content_type: str) -> list[tuple[str, str]]:
    """The boundaries that a Content-Type field gives, in whatever form: name of the parameter and value."""
    return [(name, value) for name, value in parameters(content_type) if name.partition("*")[0] == "boundary"]


def defects_around(raw: bytes, boundaries: Sequence[tuple[str, str]], octets: int) -> Iterator[str]:
    """What is wrong with the preamble and the epilogue of a multipart that is the whole of a message: nobody should see them, but for clients who
    take another line for a delimiter. `octets`: its end lies at least so far behind its first delimiter. Cheap where both are short, as they mostly are."""
    boundary = next((value for name, value in boundaries if name == "boundary"), "").encode("utf-8", "replace")
    if not boundary:
        return
    first, blank_line = raw.find(b"\n--" + boundary), raw.find(b"\r\n\r\n")
    if 0 <= blank_line < first - 3 and _PART_FIELD.search(raw, blank_line + 4, first):
        yield "fields of a part in the preamble of a multipart"
    # the first one: another at the very end would hide what lies between
    last = raw.find(b"\n--" + boundary + b"--", first + octets) if first >= 0 else -1
    if last >= 0 and _PART_FIELD.search(raw, last + len(boundary) + 5):
        yield "fields of a part behind the end of a multipart"


def node_defects(names: Collection[str], fields: Fields, media_type: str) -> Iterator[str]:
    """What is wrong with one node of the tree. `names`: those of its fields, as written; `media_type`: what it was read as."""
    has_nul = False
    for name in _SINGLE_FIELDS:
        values = fields.by_name.get(name)
        if values is not None:
            if len(values) > 1:
                yield f"{len(values)} {name} fields"
            has_nul = has_nul or "\x00" in "".join(values)
    joined = "".join(names)
    if " " in joined or not (joined.isascii() and joined.isprintable()):
        for name in names:
            if name != name.strip() or " " in name or "\x00" in name:
                # RFC 5322 section 2.2: no blank before the colon; clients read it all the same, or do not
                yield f"a NUL or blank in the field name {name.strip()!r}"
    if has_nul:
        yield "NUL in a MIME header field"
    encoding = transfer_encoding(fields.first("content-transfer-encoding"))
    yield from _content_type_defects(fields.first("content-type").lower())
    if media_type.startswith("multipart/"):
        if encoding in ("base64", "quoted-printable"):  # RFC 2045 section 6.4 allows none
            yield "a multipart with a transfer encoding"
    elif _OPAQUE_ENCODING.match(encoding):
        yield f"transfer encoding {encoding!r} is not opened"


def _content_type_defects(value: str) -> Iterator[str]:
    written = without_comments(value.partition(";")[0]).strip().strip('"')
    if not (_WRITTEN_TYPE.match(written) or _BARE_TYPE.fullmatch(written)):
        yield f"a Content-Type that readers may take for different types: {written[:80]!r}"
    if value.count("charset") > 1 and len(charsets_in(value)) > 1:
        yield "a Content-Type with more than one charset"


def multipart_defects(boundaries: Sequence[tuple[str, str]], *, has_parts: bool) -> Iterator[str]:
    """What is wrong with the boundary of a multipart."""
    if not has_parts:
        yield "a multipart without parts: its boundary is missing or never comes"
    elif len(boundaries) != 1 or boundaries[0][0] != "boundary" or not boundaries[0][1]:
        yield "a multipart whose boundary is empty, in pieces, encoded or given twice"
    elif boundaries[0][1][-1] == " ":
        yield "a multipart whose boundary ends in a blank"  # RFC 2046 section 5.1.1
