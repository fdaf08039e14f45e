"""Further texts of a part: what keywords with scope `attachments` see beside texts and attached messages.

The one place where something that can read a kind of file hooks in: an `Extractor` is given a part that is no text/* and yields what it finds
written in it. It is asked only when a rule looks into attachments, for every such part, and looks at its type, names or first bytes itself. What it
does is bounded in time and memory by itself, and it never raises for what is in the part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from postern_screener.formats.documents import document_text
from postern_screener.mime import HeaderBlock, Part
from postern_screener.text import Searchable, readings, searchable


@dataclass(frozen=True, slots=True)
class FurtherText:
    """A text in a part. `part` names it: the part's own path, with what it lies in behind it ("2/report.zip/a.txt")."""

    part: str
    readings: Sequence[Searchable]


Extractor = Callable[[Part], Iterable[FurtherText]]

_TEXT_TYPES: Final = re.compile(
    r"application/(?:[a-z0-9.-]+\+)?(?:json|xml|javascript|ecmascript|sql|csv|yaml|x-sh|x-yaml|x-javascript|pgp-.*)"
)
_SAMPLE: Final = 4096
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


def text_like(part: Part) -> Iterator[FurtherText]:
    """A part whose type, or whose beginning, says that it is text after all: JSON, XML, scripts, and text sent as application/octet-stream."""
    content = part.content()
    beginning = content[:_SAMPLE]
    if not content or not (
        _TEXT_TYPES.fullmatch(part.media_type) or beginning.startswith(_UTF_16) or not _BINARY.search(beginning)
    ):
        return
    yield FurtherText(part.path, searchable(content, part.charset, is_html=b"<" in beginning))


def document(part: Part) -> Iterator[FurtherText]:
    """Office documents and PDF."""
    for text in document_text(part.content()):
        yield FurtherText(part.path, readings(text, "utf-8"))


EXTRACTORS: Final[tuple[Extractor, ...]] = (text_like, document)


def further_texts(part: Part) -> Iterator[FurtherText]:
    """Everything that can be read in a part that is no text/* and no message."""
    for extract in EXTRACTORS:
        yield from extract(part)


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
