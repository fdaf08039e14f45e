"""Message bytes → part tree: what fast-mail-parser reads, and what it lacks: part numbers, every file name, tolerant decoding, defects.

A *defect* is a place where mail clients are known to read another message than the parser does: two Content-Type fields, a multipart whose
boundary never comes, a header field with a blank before its colon. Rules judge what was read; a message with a defect that no rule
decides is held, never passed. Bytes are only read: what is handed on is the message as received.
Standards: RFC 5322 section 2.2, RFC 2045 sections 5 and 6, RFC 2046 sections 5.1 and 5.2, RFC 3501 section 6.4.5 (part numbers).
Known gaps (todo): winmail.dat, uuencode and yEnc inside text and archives are not opened; preamble and epilogue are not screened; a line
that is no field is noticed in the message header, not in the header of a part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import fast_mail_parser

from postern_screener.charsets import decode_transfer, transfer_encoding
from postern_screener.filenames import candidate_names, parameter, parameters

MAX_PARTS: Final = 2000
_MAX_REPARSED: Final = 20  # messages inside message/global and multipart/digest, which the parser does not open
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
_DECODED_BY_PARSER: Final = frozenset({"", "7bit", "8bit", "binary", "base64", "quoted-printable"})
_OPAQUE_ENCODING: Final = re.compile(r"(?:x-)?(?:uu|yenc|binhex|macbinary)")
_ENCODING_FIELD: Final = re.compile(rb"^content-transfer-encoding(?=[ \t]*:)", re.IGNORECASE | re.MULTILINE)
_SINGLE_FIELDS: Final = ("content-type", "content-transfer-encoding", "content-disposition")
_NO_HEADER: Final[Mapping[str, Sequence[str]]] = {}


class MalformedError(ValueError):
    """The parser cannot read the message at all."""


@dataclass(frozen=True, slots=True)
class Defect:
    """One place where readers may disagree."""

    part: str
    reason: str  # one sentence for an administrator


@dataclass(frozen=True, slots=True)
class HeaderBlock:
    """Header fields of the message or of one inside it, decoded (RFC 2047), one a line."""

    part: str  # "header", or "2.header" for the message that part 2 is
    text: str


class Part:
    """One leaf of the tree, or a message/rfc822 node. Content is decoded when it is first asked for."""

    __slots__ = ("_content", "_encoding", "_node", "_raw", "charset", "is_attachment", "media_type", "names", "path")

    def __init__(self, path: str, media_type: str, node: fast_mail_parser.PyLazyMimePart, fields: _Fields, raw: bytes) -> None:
        self.path = path
        self.media_type = media_type
        content_type, disposition = fields.first("content-type"), fields.first("content-disposition")
        self.charset = parameter(content_type, "charset").lower() if media_type.startswith(("text/", "message/")) else ""
        self.names = _names(fields, node.filename)
        self.is_attachment = (
            bool(self.names)
            or disposition.strip().lower().startswith("attachment")
            or not media_type.startswith(("text/", "multipart/"))
        )
        self._encoding = fields.first("content-transfer-encoding").lower()
        self._node = node
        self._raw = raw
        self._content: bytes | None = None

    @property
    def is_text(self) -> bool:
        """Whether a reader sees it as text: reports (RFC 3464) and the like are text too."""
        return self.media_type.startswith("text/") or (self.media_type.startswith("message/") and not self._node.is_message)

    @property
    def is_html(self) -> bool:
        return self.media_type in ("text/html", "text/x-html", "text/xml") or self.media_type.endswith("xhtml")

    def content(self) -> bytes:
        """The decoded bytes; damage is decoded as far as it goes."""
        if self._content is None:
            self._content = self._decode()
        return self._content

    def _decode(self) -> bytes:
        try:
            content = self._node.content or b""
        except fast_mail_parser.DecodeError:
            return decode_transfer(_undecoded(self._raw, self.path), transfer_encoding(self._encoding))
        if self._encoding not in _DECODED_BY_PARSER:
            # `base64 ` or `"base64"`: clients decode it, the parser does not
            return decode_transfer(content, transfer_encoding(self._encoding))
        return content


@dataclass(frozen=True, slots=True)
class Message:
    """A message as far as it could be read."""

    fields: Mapping[str, Sequence[str]]  # top-level header: name in lower case → decoded values
    headers: tuple[HeaderBlock, ...]  # the message's own first
    parts: tuple[Part, ...]
    defects: tuple[Defect, ...]

    def field(self, name: str) -> str:
        """The first value of a top-level field, "" when there is none."""
        return next(iter(self.fields.get(name, ())), "")


class _Fields:
    """Header fields of one node by lower-case name."""

    __slots__ = ("by_name",)

    def __init__(self, headers: Mapping[str, Sequence[str]]) -> None:
        self.by_name: dict[str, list[str]] = {}
        for name, values in headers.items():
            self.by_name.setdefault(name.strip().lower(), []).extend(values)

    def first(self, name: str) -> str:
        values = self.by_name.get(name)
        return values[0] if values else ""


def parse_message(raw: bytes) -> Message:
    """The tree of `raw`. MalformedError when the parser refuses it (nesting over 256, over 100 MiB, broken embedded messages)."""
    try:
        root = fast_mail_parser.parse_email_tree(raw, mode="lazy")
    except fast_mail_parser.ParseError as error:
        raise MalformedError(str(error)) from error
    return _Walk(raw).run(root)


class _Walk:
    """Iterates over the tree in the order of the message, without recursion."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._headers: list[HeaderBlock] = []
        self._parts: list[Part] = []
        self._defects: list[Defect] = []
        self._reparsed = 0
        # node, path, whether it is the root of a message, whether its type is message/rfc822 unless it says otherwise
        self._ahead: list[tuple[fast_mail_parser.PyLazyMimePart, str, bool, bool]] = []

    def run(self, root: fast_mail_parser.PyLazyMimePart) -> Message:
        fields = _Fields(root.headers)
        _check_header_end(self._raw, root.headers, self._defects)
        self._ahead.append((root, "", True, False))
        while self._ahead:
            if len(self._parts) >= MAX_PARTS:
                self._defects.append(Defect("1", f"more than {MAX_PARTS} parts"))
                break
            self._visit(*self._ahead.pop())
        return Message(fields.by_name, tuple(self._headers), tuple(self._parts), tuple(self._defects))

    def _visit(self, node: fast_mail_parser.PyLazyMimePart, path: str, is_root: bool, in_digest: bool) -> None:
        fields = _Fields(node.headers)
        if is_root:
            self._headers.append(HeaderBlock(f"{path}.header" if path else "header", _header_text(node.headers)))
        media_type = _media_type(node.content_type, fields, in_digest=in_digest)
        self._check(node, path or "1", fields, media_type)
        if media_type.startswith("multipart/"):
            prefix = f"{path}." if path else ""
            digest = media_type == "multipart/digest"
            children = node.children
            self._ahead += [(children[k], f"{prefix}{k + 1}", False, digest) for k in range(len(children) - 1, -1, -1)]
            return
        # the only part of a message that is not a multipart is its part 1
        path = (f"{path}.1" if path else "1") if is_root else path
        part = Part(path, media_type, node, fields, self._raw)
        self._parts.append(part)
        if node.is_message:
            self._ahead += [(child, path, True, False) for child in node.children]
        elif media_type in ("message/rfc822", "message/global"):
            self._open(part)

    def _open(self, part: Part) -> None:
        """An embedded message that the parser left closed: message/global (RFC 6532), members of a digest (RFC 2046 section 5.1.5)."""
        self._reparsed += 1
        if self._reparsed > _MAX_REPARSED:
            self._defects.append(Defect(part.path, f"more than {_MAX_REPARSED} embedded messages of an unusual kind"))
            return
        try:
            self._ahead.append((fast_mail_parser.parse_email_tree(part.content(), mode="lazy"), part.path, True, False))
        except fast_mail_parser.ParseError as error:
            self._defects.append(Defect(part.path, f"embedded message: {error}"))

    def _check(self, node: fast_mail_parser.PyLazyMimePart, path: str, fields: _Fields, media_type: str) -> None:
        found = []
        found += [
            f"{len(fields.by_name[name])} {name} fields" for name in _SINGLE_FIELDS if len(fields.by_name.get(name, ())) > 1
        ]
        # RFC 5322 section 2.2: no blank before the colon; clients read it all the same, or do not
        found += [f"a blank in the field name {name.strip()!r}" for name in node.headers if name != name.strip() or " " in name]
        if any("\x00" in value for name in _SINGLE_FIELDS for value in fields.by_name.get(name, ())):
            found.append("NUL in a MIME header field")
        encoding = transfer_encoding(fields.first("content-transfer-encoding"))
        if media_type.startswith("multipart/"):
            boundaries = [
                value for name, value in parameters(fields.first("content-type")) if name.partition("*")[0] == "boundary"
            ]
            if not node.children:
                found.append("a multipart without parts: its boundary is missing or never comes")
            elif len(boundaries) != 1 or not boundaries[0]:
                found.append("a multipart whose boundary is empty, in pieces or given twice")
            if encoding in ("base64", "quoted-printable"):  # RFC 2045 section 6.4 allows none
                found.append("a multipart with a transfer encoding")
        elif media_type in ("message/partial", "message/external-body"):
            found.append(f"{media_type}: its content is elsewhere and cannot be screened")  # OLD-PRODUCT 2.11
        elif _OPAQUE_ENCODING.match(encoding):
            found.append(f"transfer encoding {encoding!r} is not opened")
        self._defects += [Defect(path, reason) for reason in found]


def _media_type(given: str, fields: _Fields, *, in_digest: bool) -> str:
    if in_digest and not fields.first("content-type"):
        return "message/rfc822"  # RFC 2046 section 5.1.5
    lowered = given.lower()
    if _MEDIA_TYPE.fullmatch(lowered):
        return lowered
    found = _MEDIA_TYPE.search(re.sub(r"\([^()]*\)", " ", lowered))
    return found.group() if found else "text/plain"  # RFC 2045 section 5.2


def _names(fields: _Fields, parsers_choice: str) -> tuple[str, ...]:
    values = fields.by_name.get("content-disposition", []) + fields.by_name.get("content-type", [])
    names = candidate_names(values) if any("name" in value.lower() or "file" in value.lower() for value in values) else []
    if parsers_choice and parsers_choice not in names:
        names.append(parsers_choice)
    return tuple(names)


def _header_text(headers: Mapping[str, Sequence[str]]) -> str:
    return "\n".join([f"{name}: {value}" for name, values in headers.items() for value in values])


def _check_header_end(raw: bytes, headers: Mapping[str, Sequence[str]], defects: list[Defect]) -> None:
    """A line without a colon ends the header for the parser; other readers skip it and read on."""
    end = raw.find(b"\r\n\r\n")
    if end < 0:
        return
    fields = sum(len(values) for values in headers.values())
    block = raw[:end]
    lines = block.count(b"\n") + 1 - block.count(b"\n ") - block.count(b"\n\t")
    if block and fields < lines:
        defects.append(Defect("header", "a line in the header is no header field"))


def _undecoded(raw: bytes, path: str) -> bytes:
    """The bytes of one part before transfer decoding: read again with the encodings hidden from the parser."""
    hidden = _ENCODING_FIELD.sub(b"x-undecoded", raw)
    try:
        again = _Walk(hidden).run(fast_mail_parser.parse_email_tree(hidden, mode="lazy"))
    except fast_mail_parser.ParseError:
        return raw
    for part in again.parts:
        if part.path == path:
            return part.content()
    return raw  # inside an encoded message: everything there is, rather than nothing
