"""Text of documents: Office Open XML (ECMA-376), OpenDocument (ISO/IEC 26300) and PDF (ISO 32000), as far as words need it.

To be asked only where a rule asks for the text of attachments. Not rendered: text is read where these formats keep it, with bounds on octets and time, no
entity of a document type is expanded, and nothing raises for what is in the file. Office documents that are encrypted have no text here.
"""

from __future__ import annotations

import re
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Final

from postern_screener.formats.pdf import pdf_text

MAX_OCTETS: Final = 8_000_000  # unpacked, of one document
MAX_SECONDS: Final = 1.0
_MOST_PIECES: Final = 300
_ZIP: Final = b"PK\x03\x04"
_PDF: Final = b"%PDF-"
_PDF_WITHIN: Final = 1024  # where readers look for its first line
_TEXTS: Final = re.compile(
    r"word/(?:document|header\d*|footer\d*|footnotes|endnotes|comments)\d*\.xml|word/glossary/document\.xml"
    r"|xl/(?:sharedStrings|comments\d*|worksheets/sheet\d+|worksheets/[^/]{1,80})\.xml|xl/drawings/[^/]{1,80}\.xml"
    r"|ppt/(?:slides|notesSlides|comments)/[^/]{1,80}\.xml|docProps/(?:core|app|custom)\.xml"
    r"|(?:[^/]{1,80}/)?(?:content|meta)\.xml",
    re.IGNORECASE,
)
_CDATA: Final = re.compile(r"<!\[CDATA\[(.*?)(?:\]\]>|\Z)", re.DOTALL)
_BREAK: Final = re.compile(
    r"</(?:[\w.-]{1,40}:)?(?:p|h|si|row|c|tc|tr|table-cell|table-row|sp|comment)\s*+>"
    r"|<(?:[\w.-]{1,40}:)?(?:br|tab|cr|s|line-break|noBreakHyphen)(?=[\s/>])[^>]*+>?"
)
_TAG: Final = re.compile(r"<[^>]*+>?")
_REFERENCE: Final = re.compile(r"&(?:(lt|gt|amp|quot|apos)|#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6}));")
_PREDEFINED: Final = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


def document_text(content: bytes) -> Iterator[str]:
    """The texts in a document, one for each of its pieces; none if it is no document that is known. PDF may have more readings than one."""
    if content.startswith(_ZIP):
        yield from _office_text(content)
    elif _PDF in content[:_PDF_WITHIN]:
        yield from pdf_text(content, MAX_OCTETS, MAX_SECONDS)


def _office_text(content: bytes) -> Iterator[str]:
    left, end = MAX_OCTETS, time.monotonic() + MAX_SECONDS
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            pieces = [piece for piece in archive.infolist() if _TEXTS.fullmatch(piece.filename)][:_MOST_PIECES]
            for piece in pieces:
                if left <= 0 or time.monotonic() > end:
                    return
                try:
                    with archive.open(piece) as file:
                        source = file.read(left)
                except (
                    zipfile.BadZipFile,
                    zlib.error,
                    NotImplementedError,
                    RuntimeError,
                    EOFError,
                    OSError,
                    ValueError,
                    struct.error,
                ):
                    continue  # damaged or encrypted; the others may be whole
                left -= len(source)
                yield xml_text(source)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error):
        return


def xml_text(source: bytes) -> str:
    """Characters of an XML document, a blank where a paragraph or a cell ends. Linear, and without a parser that could be told to fetch or expand."""
    codec = "utf-16" if source.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    text = source.decode(codec, "replace")
    if "<![CDATA[" in text:
        text = _CDATA.sub(lambda found: found[1].replace("&", "&amp;").replace("<", "&lt;"), text)
    text = _TAG.sub("", _BREAK.sub("\n", text))
    return _REFERENCE.sub(_referred, text) if "&" in text else text


def _referred(found: re.Match[str]) -> str:
    name, decimal, hexadecimal = found.groups()
    if name:
        return _PREDEFINED[name]
    point = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(point) if point < 0x110000 and not 0xD800 <= point < 0xE000 else "\ufffd"
