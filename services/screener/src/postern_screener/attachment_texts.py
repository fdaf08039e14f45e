"""Further texts of a part: what keywords with scope `attachments` see beside texts and attached messages.

The one place where something that can read a kind of file hooks in: an `Extractor` is given a part that is no text/* and yields what it finds
written in it. It is asked only when a rule looks into attachments, for every such part, and looks at its type, names or first bytes itself. What it
does is bounded in time and memory by itself or by `BoundedTexts`, and it never raises for what is in the part. Files in archives are read by the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

from postern_screener.bounded_texts import BoundedTexts, Reading
from postern_screener.contents.archives import Member
from postern_screener.contents.entry import HEADER_TYPE
from postern_screener.formats.documents import document_text
from postern_screener.message_tree import HeaderBlock, Part
from postern_screener.text import readings
from postern_screener.unpacking import type_by_name


class Read(Protocol):
    """How a text is read: `BoundedTexts.read` or `read_in_pieces`."""

    def __call__(self, content: bytes, charset: str, *, is_html: bool) -> Reading: ...


Extractor = Callable[[Part, Read], Iterable[Reading]]

_TEXT_TYPES: Final = re.compile(
    r"application/(?:[a-z0-9.-]+\+)?(?:json|xml|javascript|ecmascript|sql|csv|yaml|x-sh|x-yaml|x-javascript|pgp-.*)"
)
_SAMPLE: Final = 4096
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


def text_like(part: Part, read: Read) -> Iterator[Reading]:
    """A part whose type, or whose beginning, says that it is text after all: JSON, XML, scripts, and text sent as application/octet-stream."""
    content = part.content()
    beginning = content[:_SAMPLE]
    if not content or not (
        _TEXT_TYPES.fullmatch(part.media_type) or beginning.startswith(_UTF_16) or not _BINARY.search(beginning)
    ):
        return
    yield read(content, part.charset, is_html=b"<" in beginning)


def document(part: Part, _read: Read) -> Iterator[Reading]:
    """Office documents and PDF."""
    for text in document_text(part.content()):
        yield Reading(readings(text, "utf-8"))


EXTRACTORS: Final[tuple[Extractor, ...]] = (text_like, document)


def further_texts(part: Part, read: Read) -> Iterator[Reading]:
    """Everything that can be read in a part that is no text/* and no message."""
    for extract in EXTRACTORS:
        yield from extract(part, read)


def texts_in(member: Member, bounded: BoundedTexts) -> Iterator[Reading]:
    """Everything that can be read in a file in an archive, as if it were an attachment. Of the parts that every document has nothing: its text is that of
    the document. Of what is called a message nothing: its header and parts are members themselves."""
    if member.content is None or (member.is_structural and not member.in_message):
        return
    if member.media_type == HEADER_TYPE:
        texts = HeaderBlock("header", member.content.decode("utf-8", "replace")).readings
        yield Reading([reading for text in texts for reading in readings(text, "utf-8")])
        return
    if member.is_message and member.says_it_is_a_message:
        return
    media_type = member.media_type or type_by_name(member.names)
    content = bytes(member.content)
    part = Part.unpacked(member.part, media_type, content, names=member.names, charset=member.charset, container=member.part)
    if part.is_text:
        yield bounded.read_in_pieces(content, part.charset, is_html=part.is_html)
    else:
        yield from further_texts(part, bounded.read_in_pieces)


class Attached:
    """Which parts are attachments or lie in an attached message. To be asked part by part, in the order of the message."""

    def __init__(self, headers: Sequence[HeaderBlock]) -> None:
        self._messages = {header.part.removesuffix("header") for header in headers[1:]}  # "2." for the message that part 2 is
        self._inside = ""  # of the outermost attached message that we are in

    def holds(self, part: Part) -> bool:
        """Whether `part` is one."""
        if self._inside and part.path.startswith(self._inside):
            return True
        self._inside = f"{part.path}." if f"{part.path}." in self._messages else ""
        return part.is_attachment
