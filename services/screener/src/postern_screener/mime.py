"""Message bytes → part tree: what fast-mail-parser reads, and what it lacks: part numbers, every file name, tolerant decoding, defects.

Bytes are only read: what is handed on is the message as received.
Standards: RFC 5322 section 2.2, RFC 2045 sections 5 and 6, RFC 2046 sections 5.1 and 5.2, RFC 3501 section 6.4.5 (part numbers).
What parts carry in formats of their own is opened by `unpacking`; an ambiguous message is read a second time (`second_reading`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import fast_mail_parser

from postern_core.verdict import Unscannable
from postern_screener.bounds import ENDLESS_LINE, MAX_FIELDS, has_endless_line, opened_one_by_one, too_costly
from postern_screener.defects import (
    ELSEWHERE,
    MAX_FIELD_CHARACTERS,
    MEDIA_TYPE,
    Defect,
    Fields,
    boundaries_in,
    has_stray_line,
    header_defects,
    multipart_defects,
    node_defects,
    outside_defect,
    without_comments,
)
from postern_screener.message_tree import HeaderBlock, Message, Part
from postern_screener.outside import Multipart, outside_texts
from postern_screener.raw_header import header_of, may_read_otherwise, read_otherwise
from postern_screener.second_reading import Reading, read_again

MAX_PARTS: Final = 2000
_MAX_REPARSED: Final = 8  # times the message: bytes in message/global and multipart/digest, which the parser does not open
_MAX_REPARSED_LARGE: Final = 64 * 1024 * 1024  # octets beyond the message itself, for large ones
# possessive, and tried at the beginning of a run only: linear
_MEDIA_TYPE_INSIDE: Final = re.compile(r"(?<![a-z0-9!#$&^_.+-])" + MEDIA_TYPE.pattern)
_ENCODING_FIELD: Final = re.compile(rb"^content-transfer-encoding(?=[ \t]*:)", re.IGNORECASE | re.MULTILINE)
_MOST_HEADER: Final = 256 * 1024  # octets of one that no blank line ends


class MalformedError(ValueError):
    """The parser cannot read the message at all."""


class _Raw:
    """A message, or one inside it, as bytes, and its parts before transfer decoding: all read at once when the first is asked for."""

    __slots__ = ("_prefix", "_undecoded", "message")

    def __init__(self, message: bytes, prefix: str) -> None:
        """`prefix` stands in front of the numbers of its parts: "" or "2."."""
        self.message = message
        self._prefix = prefix
        self._undecoded: dict[str, Part] | None = None

    def undecoded(self, path: str) -> bytes:
        """The bytes of one part before transfer decoding: read again with the encodings hidden from the parser."""
        if self._undecoded is None:
            hidden = _ENCODING_FIELD.sub(b"x-undecoded", self.message)
            try:
                root = fast_mail_parser.parse_email_tree(hidden, mode="lazy")
                self._undecoded = {part.path: part for part in _Walk(hidden, open_messages=False).run(root).parts}
            except fast_mail_parser.ParseError:
                self._undecoded = {}
        part = self._undecoded.get(path.removeprefix(self._prefix))
        # not found only if hiding the encodings changed the structure: everything there is, rather than nothing
        return self.message if part is None else part.content()


class _Ahead(NamedTuple):
    """A node that the walk has not come to yet."""

    node: fast_mail_parser.PyLazyMimePart
    path: str
    raw: _Raw  # of the message that it belongs to
    is_root: bool = False  # of a message
    in_digest: bool = False  # its type is message/rfc822 unless it says otherwise
    fields: Fields | None = None  # its own, where somebody has looked at them already


def parse_message(raw: bytes, path: str = "") -> Message:
    """The tree of `raw`; `path` is the number of the part that it is the message of, in another one. MalformedError when the parser refuses
    it (nesting over 256, over 100 MiB, broken embedded messages) or would take too long."""
    if reason := too_costly(raw):
        raise MalformedError(reason)
    raw = opened_one_by_one(raw)
    try:
        root = fast_mail_parser.parse_email_tree(raw, mode="lazy")
    except fast_mail_parser.ParseError as error:
        raise MalformedError(str(error)) from error
    return _Walk(raw, path).run(root)


def read_message(raw: bytes) -> Message:
    """The message as far as it can be read: where it has a defect, what a second, tolerant reading finds comes behind what the first one
    found. Never raises for anything in the message."""
    try:
        message = parse_message(raw)
    except MalformedError as error:
        message = Message({}, (), (), (Defect("1", f"the message does not parse: {error}"),))
    if not any(defect.is_ambiguous and defect.kind is Unscannable.MALFORMED for defect in message.defects):
        return message
    return _union(message, read_again(raw), raw)


def _union(message: Message, again: Reading, raw: bytes) -> Message:
    fields = {name: list(values) for name, values in message.fields.items()}
    for name, values in again.fields.by_name.items():
        known = fields.setdefault(name, [])
        known += [value for value in values if value not in known]
    headers = [HeaderBlock(part, text, is_nested=part != "~header") for part, text in again.headers]
    parts = [Part(leaf.path, leaf.media_type, _Read(leaf.content), leaf.fields, _Raw(raw, "")) for leaf in again.leaves]
    defects = message.defects
    if not again.is_whole:
        defects += (Defect("1", "it can be read in more ways than are looked at", Unscannable.LIMIT),)
    return Message(fields, (*message.headers, *headers), (*message.parts, *parts), defects, message.multiparts, message.outside)


@dataclass(frozen=True, slots=True)
class _Read:
    """A leaf of the second reading, as `Part` asks a node of the parser."""

    content: bytes
    filename: str = ""
    is_message: bool = False


class _Walk:
    """Iterates over the tree in the order of the message, without recursion."""

    def __init__(self, raw: bytes, path: str = "", *, open_messages: bool = True) -> None:
        self._raw = _Raw(raw, f"{path}." if path else "")
        self._path = path
        self._open_messages = open_messages
        self._headers: list[HeaderBlock] = []
        self._parts: list[Part] = []
        self._defects: list[Defect] = []
        self._multiparts: list[Multipart] = []
        self._reparsed_bytes = 0
        self._fields_seen = 0  # names of header fields seen
        self._ahead: list[_Ahead] = []

    def run(self, root: fast_mail_parser.PyLazyMimePart) -> Message:
        fields = Fields(root.headers)
        self._ahead.append(_Ahead(root, self._path, self._raw, is_root=True, fields=fields))
        while self._ahead:
            if len(self._parts) >= MAX_PARTS:
                self._defects.append(Defect("1", f"more than {MAX_PARTS} parts"))
                break
            if self._fields_seen > MAX_FIELDS:
                self._defects.append(Defect("1", f"more than {MAX_FIELDS} header fields"))
                break
            self._visit(self._ahead.pop())
        outside = outside_texts(self._multiparts) if self._multiparts and self._open_messages else ()
        for place, text in outside:
            if reason := outside_defect(place, text):
                self._defects.append(Defect(place.rpartition(".")[0] or self._path or "1", reason))
        return Message(
            fields.by_name,
            tuple(self._headers),
            tuple(self._parts),
            tuple(self._defects),
            tuple(self._multiparts),
            tuple(outside),
        )

    def _visit(self, ahead: _Ahead) -> None:
        node, path, raw = ahead.node, ahead.path, ahead.raw
        headers = node.headers
        fields = ahead.fields or Fields(headers)
        self._fields_seen += len(fields.by_name)
        if len(raw.message) > MAX_FIELD_CHARACTERS and fields.shorten():
            self._defects.append(Defect(path or "1", f"a MIME header field of more than {MAX_FIELD_CHARACTERS} characters"))
        if ahead.is_root:
            self._read_header(path, raw.message, headers, fields)
        elif has_stray_line(headers):
            self._defects.append(Defect(path, "a line in the header of a part is no header field"))
        media_type = _media_type(node.content_type, fields, in_digest=ahead.in_digest)
        for reason in node_defects(headers, fields, media_type):
            self._defects.append(Defect(path or "1", reason))
        children = node.children
        if media_type in ELSEWHERE:
            reason = f"{media_type}: its content is elsewhere and cannot be screened"
            self._defects.append(Defect(path or "1", reason, Unscannable.INCOMPLETE))
        if media_type.startswith("multipart/"):
            boundaries = boundaries_in(fields.first("content-type"))
            for reason in multipart_defects(boundaries, has_parts=bool(children)):
                self._defects.append(Defect(path or "1", reason))
            prefix = f"{path}." if path else ""
            digest = media_type == "multipart/digest"
            if children:
                octets = sum([child.encoded_size or 0 for child in children])
                self._multiparts.append(Multipart(path, fields.first("content-type"), raw.message, ahead.is_root, octets))
            self._ahead += [
                _Ahead(children[k], f"{prefix}{k + 1}", raw, in_digest=digest) for k in range(len(children) - 1, -1, -1)
            ]
            return
        # the only part of a message that is not a multipart is its part 1
        path = (f"{path}.1" if path else "1") if ahead.is_root else path
        part = Part(path, media_type, node, fields, raw)
        self._parts.append(part)
        if not self._open_messages:
            return
        if node.is_message:
            inner = _Raw(part.content(), f"{path}.")
            self._ahead += [_Ahead(child, path, inner, is_root=True) for child in children]
        elif media_type in ("message/rfc822", "message/global", "message/news"):
            self._open(part)

    def _read_header(self, path: str, message: bytes, headers: Mapping[str, Sequence[str]], fields: Fields) -> None:
        """That of a message, or of one inside it."""
        where = f"{path}.header" if path else "header"
        header = header_of(message)
        for reason in header_defects(header, fields):
            self._defects.append(Defect(where, reason))
        if path and (block := header or message[:_MOST_HEADER]).count(b"\r") != block.count(b"\r\n"):
            self._defects.append(Defect(where, "a bare CR in the header of an attached message"))
        otherwise = _otherwise(header or message, fields, is_nested=bool(path))
        self._headers.append(HeaderBlock(where, _header_text(headers), is_nested=bool(path), otherwise=otherwise))
        if not path and len(message) > ENDLESS_LINE and has_endless_line(message):
            self._defects.append(Defect("1", f"a line of more than {ENDLESS_LINE} octets", is_ambiguous=False))

    def _open(self, part: Part) -> None:
        """An embedded message that the parser left closed: message/global (RFC 6532), members of a digest (RFC 2046 section 5.1.5)."""
        self._reparsed_bytes += len(part.content())
        whole = len(self._raw.message)
        if self._reparsed_bytes > min(_MAX_REPARSED * whole, whole + max(whole, _MAX_REPARSED_LARGE)):
            self._defects.append(Defect(part.path, "embedded messages of an unusual kind nest too deep"))
            return
        try:
            root = fast_mail_parser.parse_email_tree(part.content(), mode="lazy")
            self._ahead.append(_Ahead(root, part.path, _Raw(part.content(), f"{part.path}."), is_root=True))
        except fast_mail_parser.ParseError as error:
            self._defects.append(Defect(part.path, f"embedded message: {error}"))


def _media_type(given: str, fields: Fields, *, in_digest: bool) -> str:
    if in_digest and not fields.first("content-type"):
        return "message/rfc822"  # RFC 2046 section 5.1.5
    lowered = given.lower()
    if MEDIA_TYPE.fullmatch(lowered):
        return lowered
    found = _MEDIA_TYPE_INSIDE.search(without_comments(lowered))
    return found.group() if found else "text/plain"  # RFC 2045 section 5.2


def _otherwise(header: bytes, fields: Fields, *, is_nested: bool) -> str:
    """What clients decode in another way than the parser, one field a line; `fields` gets those values, too."""
    if not may_read_otherwise(header):
        return ""
    found: dict[str, None] = {}
    for name, value in read_otherwise(header, is_guessed=not is_nested):
        known = fields.by_name.get(name, [])
        if name.startswith("content-") or value in known:
            continue  # those say what parts are, and there may be one of each
        found[f"{name}: {value}"] = None
        fields.by_name[name] = [*known, value]
    return "\n".join(found)


def _header_text(headers: Mapping[str, Sequence[str]]) -> str:
    return "\n".join([f"{name}: {value}" for name, values in headers.items() for value in values])
