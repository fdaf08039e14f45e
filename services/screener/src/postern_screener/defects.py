"""Defects: places where mail clients are known to read another message than our parser does.

Two Content-Type fields, a multipart whose boundary never comes, a header field with a blank before its colon … Rules judge what was read;
a message with a defect that no rule decides is held, never passed.
Standards: RFC 5322 section 2.2, RFC 2045 sections 5 and 6, RFC 2046 section 5.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from postern_core.verdict import Unscannable
from postern_screener.charsets import transfer_encoding
from postern_screener.filenames import USUAL, charsets_in, parameters

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

    def __init__(self, headers: Mapping[str, list[str]]) -> None:
        self.by_name = by_name = dict[str, list[str]]()
        for written, values in headers.items():
            name = written.strip().lower()
            # the parser's own list, which is not to be changed, as long as the name is there in one spelling
            by_name[name] = [*by_name[name], *values] if name in by_name else values

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


def header_defects(header: bytes, fields: Fields) -> Iterator[str]:
    """What is wrong with the header of a message, up to the blank line. A line without a colon ends it for the parser; others skip the line and read on."""
    for value in fields.all("from"):
        if value.count("@") > MAX_ADDRESSES:
            yield f"more than {MAX_ADDRESSES} addresses in From"
            break
    if not header:
        return
    lines = header.count(b"\n") + 1 - header.count(b"\n ") - header.count(b"\n\t")
    if sum(map(len, fields.by_name.values())) < lines:
        yield "a line in the header is no header field"


def has_stray_line(headers: Mapping[str, Sequence[str]]) -> bool:
    """Whether a line in the header of a part is no field: the parser takes one without a colon for a field of nothing; for others the body begins there."""
    for name, values in headers.items():  # noqa: SIM110 - a generator costs more than the look
        if "" in values and not name.lower().startswith(_MAY_BE_EMPTY):
            return True
    return False


def boundaries_in(content_type: str) -> list[tuple[str, str]]:
    """The boundaries that a Content-Type field gives, in whatever form: name of the parameter and value."""
    return [(name, value) for name, value in parameters(content_type) if name.partition("*")[0] == "boundary"]


def outside_defect(place: str, text: bytes) -> str:
    """What is wrong with the preamble or the epilogue of a multipart, "" for nothing: nobody should see it, but for clients who take another line for a
    delimiter. `place`: as `outside_texts` calls it."""
    if _PART_FIELD.search(text) is None:
        return ""
    return f"fields of a part {'in the preamble' if place.endswith('preamble') else 'behind the end'} of a multipart"


def node_defects(names: Collection[str], fields: Fields, media_type: str) -> Iterator[str]:
    """What is wrong with one node of the tree. `names`: those of its fields, as written; `media_type`: what it was read as."""
    has_nul, by_name = False, fields.by_name
    for name in _SINGLE_FIELDS:
        if name in by_name:
            values = by_name[name]
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
    content_type = fields.first("content-type")
    yield from _usual_type_defects(content_type) if len(content_type) <= USUAL else _content_type_defects(content_type)
    if media_type.startswith("multipart/"):
        if encoding in ("base64", "quoted-printable"):  # RFC 2045 section 6.4 allows none
            yield "a multipart with a transfer encoding"
    elif _OPAQUE_ENCODING.match(encoding):
        yield f"transfer encoding {encoding!r} is not opened"


def _content_type_defects(content_type: str) -> list[str]:
    found = []
    value = content_type.lower()
    written = without_comments(value.partition(";")[0]).strip().strip('"')
    if not (_WRITTEN_TYPE.match(written) or _BARE_TYPE.fullmatch(written)):
        found.append(f"a Content-Type that readers may take for different types: {written[:80]!r}")
    if value.count("charset") > 1 and len(charsets_in(value)) > 1:
        found.append("a Content-Type with more than one charset")
    return found


_usual_type_defects: Final = functools.lru_cache(maxsize=1024)(_content_type_defects)


def multipart_defects(boundaries: Sequence[tuple[str, str]], *, has_parts: bool) -> Iterator[str]:
    """What is wrong with the boundary of a multipart."""
    if not has_parts:
        yield "a multipart without parts: its boundary is missing or never comes"
    elif len(boundaries) != 1 or boundaries[0][0] != "boundary" or not boundaries[0][1]:
        yield "a multipart whose boundary is empty, in pieces, encoded or given twice"
    elif boundaries[0][1][-1] == " ":
        yield "a multipart whose boundary ends in a blank"  # RFC 2046 section 5.1.1
