"""Texts as keywords are compared in: one folded form in UTF-8, and the way back from a match to the part's own bytes.

Folding is NFKC and case folding, without characters that show nothing: `ＬＯＴ\u00adTERY` reads as `lottery`, and so does a word with NUL
or another control in it. ASCII, the common case, is only put in lower case.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from postern_screener.charsets import is_plain_ascii, text_readings
from postern_screener.checks.hit import Place
from postern_screener.html_text import source_end, source_index, visible_text
from postern_screener.unicode_forms import caseless

# controls but white space, and DEL: clients show nothing or a box, and a reader reads across it
_CONTROLS: Final = bytes(byte for byte in (*range(0x20), 0x7F) if byte not in b"\t\n\v\f\r")
_LOWER: Final = bytes(range(256)).lower()
_IGNORED: Final = re.compile(
    "[\u0080-\u0084\u0086-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]+"
)
# the same characters in UTF-8, by first byte: each of these searches runs at the speed of memchr, the class above does not
_IGNORED_BYTES: Final = tuple(
    re.compile(expression)
    for expression in (
        rb"\xc2[\x80-\x84\x86-\x9f\xad]",
        rb"\xcd\x8f",
        rb"\xd8\x9c",
        rb"\xe1(?:\x85[\x9f\xa0]|\x9e[\xb4\xb5]|\xa0[\x8b-\x8e])",
        rb"\xe2(?:\x80[\x8b-\x8f\xaa-\xae]|\x81[\xa0-\xaf])",
        rb"\xef(?:\xb8[\x80-\x8f]|\xbb\xbf)",
    )
)
_CHUNK: Final = 4096


def fold(text: str) -> str:
    """`text` in the form in which phrases and messages are compared."""
    if text.isascii():
        return _fold_ascii(text.encode("ascii")).decode("ascii")
    # NFKC leaves the other separators alone; the no-break space it would handle, but often nothing else keeps a text from being ASCII
    for separator in "\xa0\x85\u1680\u2028\u2029":
        text = text.replace(separator, " ")
    if text.isascii():
        return _fold_ascii(text.encode("ascii")).decode("ascii")
    encoded = text.encode("utf-8", "replace").translate(None, _CONTROLS)
    text = encoded.decode("utf-8")
    if any(expression.search(encoded) for expression in _IGNORED_BYTES):
        text = _IGNORED.sub("", text)
    return caseless(text)


def _fold_ascii(text: bytes) -> bytes:
    return text.translate(_LOWER, _CONTROLS)


class Searchable(Protocol):
    """A text to look for keywords in."""

    data: bytes  # folded, UTF-8

    def locate(self, start: int, end: int) -> Place:
        """The place in the decoded part of a span of `data`."""


class PlainText:
    """ASCII bytes."""

    __slots__ = ("_content", "data")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.data = _fold_ascii(content)

    def locate(self, start: int, end: int) -> Place:
        if len(self.data) < len(self._content):
            return UnicodeText(self._content.decode("ascii"), "ascii").locate(start, end)
        return Place(start, self._content[start:end].decode("ascii", "replace"), end - start)


class UnicodeText:
    """A text that `codec` decoded."""

    __slots__ = ("_codec", "_text", "data")

    def __init__(self, text: str, codec: str) -> None:
        self._text = text
        self._codec = codec
        self.data = fold(text).encode("utf-8", "replace")

    def locate(self, start: int, end: int) -> Place:
        first, last = self.indexes(start, end)
        return _place(self._text, first, last, self._codec, self._text[first:last])

    def indexes(self, start: int, end: int) -> tuple[int, int]:
        """The span as character indexes into the text before folding."""
        first = len(self.data[:start].decode("utf-8", "replace"))
        length = len(self.data[start:end].decode("utf-8", "replace"))
        return _unfolded_index(self._text, first + 1) - 1, _unfolded_index(self._text, first + length)


class HtmlText:
    """What a reader sees of an HTML text."""

    __slots__ = ("_codec", "_source", "_visible", "data")

    def __init__(self, source: str, codec: str) -> None:
        self._source = source
        self._codec = codec
        self._visible = UnicodeText(visible_text(source), "utf-8")
        self.data = self._visible.data

    def locate(self, start: int, end: int) -> Place:
        first, last = self._visible.indexes(start, end)
        excerpt = self._visible.locate(start, end).excerpt
        return _place(self._source, source_index(self._source, first), source_end(self._source, last - 1), self._codec, excerpt)


def searchable(content: bytes, charset: str, *, is_html: bool) -> list[Searchable]:
    """Every reading of a text part: as it stands, in each charset that it may be in, and as a reader sees it when it is HTML."""
    if is_plain_ascii(content, charset):
        texts: list[Searchable] = [PlainText(content)]
        if is_html:
            texts.append(HtmlText(content.decode("ascii"), "ascii"))
        return texts
    texts = []
    for text, codec in text_readings(content, charset):
        texts.append(UnicodeText(text, codec))
        if is_html:
            texts.append(HtmlText(text, codec))
    return texts


def _place(text: str, first: int, last: int, codec: str, excerpt: str) -> Place:
    offset = byte_offset(text, first, codec)
    return Place(offset, excerpt, max(byte_offset(text, last, codec) - offset, 0))


def byte_offset(text: str, index: int, codec: str) -> int:
    """How many bytes `text[:index]` takes in `codec`."""
    return len(text[: max(index, 0)].encode(codec, "replace"))


def _unfolded_index(text: str, folded_length: int) -> int:
    """The least number of characters of `text` that fold to at least `folded_length` characters. Linear in `text`."""
    if text.isascii() and len(fold(text)) == len(text):
        return min(folded_length, len(text))
    done, position = 0, 0
    while position < len(text):
        grown = len(fold(text[position : position + _CHUNK]))
        if done + grown >= folded_length:
            break
        done += grown
        position += _CHUNK
    low, high = 0, min(_CHUNK, len(text) - position)
    while low < high:
        middle = (low + high) // 2
        if done + len(fold(text[position : position + middle])) < folded_length:
            low = middle + 1
        else:
            high = middle
    return position + low
