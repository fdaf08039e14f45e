"""What a message is to the rules: its header blocks and its parts, each with the names, the type and the content that a client may see in it.

`mime` makes them out of what the parser reads, `unpacking` out of what parts carry in formats of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import fast_mail_parser

from postern_screener.charsets import decode_transfer, transfer_encoding
from postern_screener.defects import Defect, Fields
from postern_screener.encoded_words import decode_leniently
from postern_screener.filenames import candidate_names, charset_of
from postern_screener.outside import Multipart

_DECODED_BY_PARSER: Final = frozenset({"", "7bit", "8bit", "binary", "base64", "quoted-printable"})
_FLOWED: Final = re.compile(r" \r?\n")  # RFC 3676 section 4.1, with DelSp=yes
_FOLDED: Final = re.compile(r"\r?\n[ \t]")  # RFC 5545 section 3.1, RFC 6350 section 3.2
_FOLDED_TYPES: Final = frozenset(("text/calendar", "text/x-vcalendar", "text/vcard", "text/x-vcard", "text/directory"))


class HeaderBlock(NamedTuple):
    """Header fields of the message or of one inside it, decoded (RFC 2047), one a line."""

    part: str  # "header", or "2.header" for the message that part 2 is
    text: str
    is_nested: bool = False
    otherwise: str = ""  # fields that clients decode in another way than the parser

    @property
    def readings(self) -> tuple[str, ...]:
        """The text, and what clients make of it where the parser decodes less, or otherwise."""
        lenient = decode_leniently(self.text)
        found = (self.text,) if lenient == self.text else (self.text, lenient)
        return (*found, self.otherwise) if self.otherwise else found


class Node(Protocol):
    """What a part asks of a node of the parser, or of a leaf of the second reading."""

    @property
    def content(self) -> bytes | None: ...

    @property
    def filename(self) -> str: ...

    @property
    def is_message(self) -> bool: ...


class Undecoded(Protocol):
    """The parts of a message before transfer decoding."""

    def undecoded(self, path: str) -> bytes: ...


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
            "taken_out",
        ),
    )

    taken_out: re.Pattern[str] | None

    def __init__(self, path: str, media_type: str, node: Node, fields: Fields, raw: Undecoded) -> None:
        self._is(path, media_type, is_opened=node.is_message)
        content_type, disposition = fields.first("content-type"), fields.first("content-disposition")
        if "delsp" in content_type.lower():
            self.taken_out = _FLOWED
        self.charset = charset_of(content_type).lower() if media_type.startswith(("text/", "message/")) else ""
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
        # line ends that are there for transport alone: readers of its format put the lines together again
        self.taken_out = _FOLDED if media_type in _FOLDED_TYPES else None

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


class Message(NamedTuple):
    """A message as far as it could be read."""

    fields: Mapping[str, Sequence[str]]  # top-level header: name in lower case → decoded values
    headers: tuple[HeaderBlock, ...]  # the message's own first
    parts: tuple[Part, ...]
    defects: tuple[Defect, ...]
    multiparts: tuple[Multipart, ...] = ()
    outside: tuple[tuple[str, bytes], ...] = ()  # text outside of the parts of multiparts: place and text

    def field(self, name: str) -> str:
        """The first value of a top-level field, "" when there is none."""
        values = self.fields.get(name)
        return values[0] if values else ""


def _names(fields: Fields, parsers_choice: str) -> tuple[str, ...]:
    values = fields.by_name.get("content-disposition", []) + fields.by_name.get("content-type", [])
    said = "\n".join(values).lower()
    names = candidate_names(values) if "name" in said or "file" in said else []
    if parsers_choice and parsers_choice not in names:
        names.append(parsers_choice)
    return tuple(names)
