"""Message bytes → part tree: what fast-mail-parser reads, and what it lacks: part numbers, every file name, tolerant decoding, defects.

Bytes are only read: what is handed on is the message as received.
Standards: RFC 5322 section 2.2, RFC 2045 sections 5 and 6, RFC 2046 sections 5.1 and 5.2, RFC 3501 section 6.4.5 (part numbers).
What parts carry in formats of their own is opened by `unpacking`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import fast_mail_parser

from postern_screener.charsets import decode_transfer, transfer_encoding
from postern_screener.defects import MEDIA_TYPE, Defect, Fields, header_defects, node_defects, without_comments
from postern_screener.encoded_words import decode_leniently
from postern_screener.filenames import candidate_names, parameter
from postern_screener.outside import Multipart

MAX_PARTS: Final = 2000
MAX_ENCODED_WORDS: Final = 2000  # a line; the parser's time grows with their square
_MAX_REPARSED: Final = 8  # times the message: bytes in message/global and multipart/digest, which the parser does not open
# possessive, and tried at the beginning of a run only: linear
_MEDIA_TYPE_INSIDE: Final = re.compile(r"(?<![a-z0-9!#$&^_.+-])" + MEDIA_TYPE.pattern)
_DECODED_BY_PARSER: Final = frozenset({"", "7bit", "8bit", "binary", "base64", "quoted-printable"})
_ENCODING_FIELD: Final = re.compile(rb"^content-transfer-encoding(?=[ \t]*:)", re.IGNORECASE | re.MULTILINE)
_NO_HEADER: Final[Mapping[str, Sequence[str]]] = {}


class MalformedError(ValueError):
    """The parser cannot read the message at all."""


@dataclass(frozen=True, slots=True)
class HeaderBlock:
    """Header fields of the message or of one inside it, decoded (RFC 2047), one a line."""

    part: str  # "header", or "2.header" for the message that part 2 is
    text: str

    @property
    def readings(self) -> tuple[str, ...]:
        """The text, and what clients make of encoded words that the parser left alone."""
        lenient = decode_leniently(self.text)
        return (self.text,) if lenient == self.text else (self.text, lenient)


class Part:
    """One leaf of the tree, or a message/rfc822 node. Content is decoded when it is first asked for."""

    __slots__ = (
        *("_content", "_encoding", "_node", "_raw"),
        *(
            "charset",
            "container",
            "is_attachment",
            "is_html",
            "is_inline",
            "is_message",
            "is_text",
            "media_type",
            "names",
            "path",
        ),
    )

    def __init__(self, path: str, media_type: str, node: fast_mail_parser.PyLazyMimePart, fields: Fields, raw: _Raw) -> None:
        self._is(path, media_type, is_opened=node.is_message)
        content_type, disposition = fields.first("content-type"), fields.first("content-disposition")
        self.charset = parameter(content_type, "charset").lower() if media_type.startswith(("text/", "message/")) else ""
        self.names = _names(fields, node.filename)
        self.is_inline = "attachment" not in disposition.lower()
        self.is_attachment = bool(self.names) or not self.is_inline or not media_type.startswith(("text/", "multipart/"))
        self._encoding = fields.first("content-transfer-encoding").lower()
        self._node = node
        self._raw = raw
        self._content: bytes | None = None
        self.container = ""

    @classmethod
    def unpacked(
        cls, path: str, media_type: str, content: bytes, *, names: tuple[str, ...] = (), charset: str = "", container: str
    ) -> Part:
        """What was packed into the part `container` in another way than MIME's; it is no part of the tree itself."""
        self = cls.__new__(cls)
        self._is(path, media_type, is_opened=False)
        self.charset = charset
        self.names = names
        self.is_attachment = bool(names) or not media_type.startswith("text/")
        self.is_inline = False
        self.container = container
        self._content = content
        return self

    def _is(self, path: str, media_type: str, *, is_opened: bool) -> None:
        self.path = path
        self.media_type = media_type
        self.is_message = is_opened  # its header and parts stand in the tree by themselves
        is_text = media_type.startswith("text/")
        # whether a reader sees it as text: reports (RFC 3464) and the like are text too
        self.is_text = is_text or (media_type.startswith("message/") and not is_opened)
        # whether some client shows it without its markup: HTML and its kin, text/enriched (RFC 1896), and text of a type unknown
        self.is_html = is_text and media_type != "text/plain"

    def content(self) -> bytes:
        """The decoded bytes; damage is decoded as far as it goes."""
        if self._content is None:
            self._content = self._decode()
        return self._content

    def _decode(self) -> bytes:
        try:
            content = self._node.content or b""
        except fast_mail_parser.DecodeError:
            return decode_transfer(self._raw.undecoded(self.path), transfer_encoding(self._encoding))
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
    multiparts: tuple[Multipart, ...] = ()

    def field(self, name: str) -> str:
        """The first value of a top-level field, "" when there is none."""
        return next(iter(self.fields.get(name, ())), "")


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


@dataclass(frozen=True, slots=True)
class _Ahead:
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
    if _has_many_encoded_words(raw) and any(line.count(b"=?") > MAX_ENCODED_WORDS for line in raw.split(b"\n")):
        raise MalformedError(f"more than {MAX_ENCODED_WORDS} encoded words in a line")
    try:
        root = fast_mail_parser.parse_email_tree(raw, mode="lazy")
    except fast_mail_parser.ParseError as error:
        raise MalformedError(str(error)) from error
    return _Walk(raw, path).run(root)


def _has_many_encoded_words(raw: bytes) -> bool:
    """More than MAX_ENCODED_WORDS of them. A search for one octet runs at memory speed, one for two does not, and base64 holds no question mark."""
    at = -1
    for _ in range(MAX_ENCODED_WORDS + 1):
        if (at := raw.find(b"?", at + 1)) < 0:
            return False
    return raw.count(b"=?") > MAX_ENCODED_WORDS


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
        self._ahead: list[_Ahead] = []

    def run(self, root: fast_mail_parser.PyLazyMimePart) -> Message:
        fields = Fields(root.headers)
        where = f"{self._path}.header" if self._path else "header"
        self._defects += [Defect(where, reason) for reason in header_defects(self._raw.message, fields)]
        self._ahead.append(_Ahead(root, self._path, self._raw, is_root=True, fields=fields))
        while self._ahead:
            if len(self._parts) >= MAX_PARTS:
                self._defects.append(Defect("1", f"more than {MAX_PARTS} parts"))
                break
            self._visit(self._ahead.pop())
        return Message(fields.by_name, tuple(self._headers), tuple(self._parts), tuple(self._defects), tuple(self._multiparts))

    def _visit(self, ahead: _Ahead) -> None:
        node, path, raw = ahead.node, ahead.path, ahead.raw
        fields = ahead.fields or Fields(node.headers)
        if ahead.is_root:
            self._headers.append(HeaderBlock(f"{path}.header" if path else "header", _header_text(node.headers)))
        media_type = _media_type(node.content_type, fields, in_digest=ahead.in_digest)
        found = node_defects(node.headers, fields, media_type, has_parts=bool(node.children))
        self._defects += [Defect(path or "1", reason) for reason in found]
        if media_type.startswith("multipart/"):
            prefix = f"{path}." if path else ""
            digest = media_type == "multipart/digest"
            children = node.children
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
            self._ahead += [_Ahead(child, path, inner, is_root=True) for child in node.children]
        elif media_type in ("message/rfc822", "message/global", "message/news"):
            self._open(part)

    def _open(self, part: Part) -> None:
        """An embedded message that the parser left closed: message/global (RFC 6532), members of a digest (RFC 2046 section 5.1.5)."""
        self._reparsed_bytes += len(part.content())
        if self._reparsed_bytes > _MAX_REPARSED * len(self._raw.message):
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


def _names(fields: Fields, parsers_choice: str) -> tuple[str, ...]:
    values = fields.by_name.get("content-disposition", []) + fields.by_name.get("content-type", [])
    names = candidate_names(values) if any("name" in value.lower() or "file" in value.lower() for value in values) else []
    if parsers_choice and parsers_choice not in names:
        names.append(parsers_choice)
    return tuple(names)


def _header_text(headers: Mapping[str, Sequence[str]]) -> str:
    return "\n".join([f"{name}: {value}" for name, values in headers.items() for value in values])
