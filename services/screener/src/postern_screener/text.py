"""Texts as keywords are compared in: one folded form in UTF-8, and the way back from a match to the part's own bytes.

Folding is NFKC and case folding, without characters that show nothing: `ＬＯＴ\u00adTERY` reads as `lottery`, and so does a word with NUL
or another control in it. ASCII, the common case, is only put in lower case. A text that a reader may take for another one, for the look-alike
letters in it or because it is written backwards, has more than one reading: all are searched, the literal one first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from postern_core.unicode_forms import UNSEEN, caseless, compatible
from postern_screener.charsets import guessed_codecs, has_to_be_guessed, is_plain_ascii, meta_charset, text_readings
from postern_screener.checks.hit import Place
from postern_screener.hidden_text import Cut, cuts, without
from postern_screener.html_text import source_end, source_index, visible_text
from postern_screener.lookalikes import has_marks, may_have_lookalikes, undisguised, without_marks
from postern_screener.offsets import span_of

# controls but white space, and DEL: clients show nothing or a box, and a reader reads across it
_CONTROLS: Final = bytes(byte for byte in (*range(0x20), 0x7F) if byte not in b"\t\n\v\f\r")
_LOWER: Final = bytes(range(256)).lower()
# `UNSEEN` in UTF-8, by first byte: each of these searches runs at the speed of memchr, that class does not
_IGNORED_BYTES: Final = tuple(
    re.compile(expression)
    for expression in (
        rb"\xc2[\x80-\x84\x86-\x9f\xad]",
        rb"\xcd\x8f",
        rb"\xd8\x9c",
        rb"\xe1(?:\x85[\x9f\xa0]|\x9e[\xb4\xb5]|\xa0[\x8b-\x8f])",
        rb"\xe2(?:\x80[\x8b-\x8f\xaa-\xae]|\x81[\xa0-\xaf])",
        rb"\xe3\x85\xa4",
        rb"\xef(?:\xb8[\x80-\x8f]|\xbb\xbf|\xbe\xa0|\xbf[\xb0-\xbd])",
        rb"\xf0(?:\x9b\xb2[\xa0-\xa3]|\x9d\x85[\xb3-\xba])",
        rb"\xf3\xa0",
    )
)
_CHUNK: Final = 4096
_OVERRIDE: Final = "\u202e"  # what follows is shown from right to left, up to U+202C or the end of the line
_OVERRIDDEN: Final = re.compile("(?<=\u202e)[^\u202c\n]+")


def fold(text: str) -> str:
    """`text` in the form in which phrases and messages are compared."""
    if text.isascii():
        return _fold_ascii(text.encode("ascii")).decode("ascii")
    text = _without_unseen(text)
    if text.isascii():
        return _fold_ascii(text.encode("ascii")).decode("ascii")
    return caseless(text)


def written(text: str) -> str:
    """`text` in form NFKC, without what shows nothing, in the case in which it is written."""
    return _without_controls(text) if text.isascii() else compatible(_without_unseen(text))


def _without_controls(text: str) -> str:
    return text.encode("ascii").translate(None, _CONTROLS).decode("ascii")


def _without_unseen(text: str) -> str:
    """`text`, which is not ASCII, with blanks for separators of lines and without what shows nothing."""
    # NFKC leaves the other separators alone; the no-break space it would handle, but often nothing else keeps a text from being ASCII
    for separator in "\xa0\x85\u1680\u2028\u2029":
        text = text.replace(separator, " ")
    if text.isascii():
        return text
    encoded = text.encode("utf-8", "replace").translate(None, _CONTROLS)
    text = encoded.decode("utf-8")
    if any(expression.search(encoded) for expression in _IGNORED_BYTES):
        text = UNSEEN.sub("", text)
    return text


def _fold_without_marks(text: str) -> str:
    return without_marks(fold(text))


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
    """A text that `codec` decoded from `content`, or another reading of it. Without `content`: a text that has no octets but those it takes in `codec`."""

    __slots__ = ("_codec", "_content", "_folding", "_text", "data")

    def __init__(
        self,
        text: str,
        codec: str,
        data: bytes | None = None,
        folding: Callable[[str], str] = fold,
        content: bytes | None = None,
    ) -> None:
        """`data`: what is searched instead of the folded text; `folding` says how many characters of it a piece of the text takes."""
        self._text = text
        self._codec = codec
        self._content = content
        self._folding = folding
        if data is None:
            data = _fold_ascii(text.encode("ascii")) if text.isascii() else fold(text).encode("utf-8", "replace")
        self.data = data

    def locate(self, start: int, end: int) -> Place:
        first, last = self.indexes(start, end)
        return _place(self._text, first, last, self._codec, self._text[first:last], self._content)

    def indexes(self, start: int, end: int) -> tuple[int, int]:
        """The span as character indexes into the text before folding."""
        first = len(self.data[:start].decode("utf-8", "replace"))
        length = len(self.data[start:end].decode("utf-8", "replace"))
        return (
            _unfolded_index(self._text, first + 1, self._folding) - 1,
            _unfolded_index(self._text, first + length, self._folding),
        )


class _TurnedText(UnicodeText):
    """A text in which what is shown from right to left is turned round; its characters stand where they stood."""

    __slots__ = ("_runs",)

    def __init__(self, text: str, codec: str, content: bytes | None) -> None:
        self._runs = [run.span() for run in _OVERRIDDEN.finditer(text)]
        super().__init__(_OVERRIDDEN.sub(lambda run: run.group()[::-1], text), codec, content=content)

    def locate(self, start: int, end: int) -> Place:
        first, last = super().indexes(start, end)
        shown = self._text[first:last]
        written = _OVERRIDDEN.sub(lambda run: run.group()[::-1], self._text)
        return _place(written, *self._as_written(first, last), self._codec, shown, self._content)

    def indexes(self, start: int, end: int) -> tuple[int, int]:
        return self._as_written(*super().indexes(start, end))

    def _as_written(self, first: int, last: int) -> tuple[int, int]:
        """The least span that has all of these characters."""
        spans = [(first, last)]
        for begin, end in self._runs:
            cut = max(first, begin), min(last, end)
            if cut[0] < cut[1]:
                spans.append((begin + end - cut[1], begin + end - cut[0]))
                if cut == (first, last):
                    return spans[-1]
        return min(begin for begin, _ in spans), max(end for _, end in spans)


def readings(text: str, codec: str, content: bytes | None = None) -> list[UnicodeText]:
    """`text` as it stands, and as a reader may take it: right to left where it says so, look-alike letters for those that they look like."""
    if text.isascii():
        return [UnicodeText(text, codec, content=content)]
    seen = _without_unseen(text)
    if seen.isascii():
        found = [UnicodeText(text, codec, _fold_ascii(seen.encode("ascii")), content=content)]
    else:
        found = [UnicodeText(text, codec, caseless(seen).encode("utf-8", "replace"), content=content)]
    data = found[0].data
    if _OVERRIDE in text:
        found.append(_TurnedText(text, codec, content))
    if not data.isascii() and may_have_lookalikes(data):
        plain = compared = compatible(seen)
        if has_marks(data):
            plain = without_marks(compared)
        others = undisguised(plain) if plain == compared else [plain, *undisguised(plain)]
        found += [
            UnicodeText(text, codec, without_marks(caseless(other)).encode("utf-8", "replace"), _fold_without_marks, content)
            for other in others
        ]
    return found


class HtmlText:
    """What a reader sees of an HTML text."""

    __slots__ = ("_codec", "_content", "_cut", "_source", "_visible", "data")

    def __init__(
        self, source: str, codec: str, visible: UnicodeText, cut: Cut | None = None, content: bytes | None = None
    ) -> None:
        """`visible`: a reading of what `source` shows, without what `cut` takes out of it."""
        self._source = source
        self._codec = codec
        self._visible = visible
        self._content = content
        self._cut = cut
        self.data = visible.data

    def locate(self, start: int, end: int) -> Place:
        first, last = self._visible.indexes(start, end)
        excerpt = self._visible.locate(start, end).excerpt
        shown = self._source if self._cut is None else self._cut.rest
        begins, ends = source_index(shown, first), source_end(shown, last - 1)
        if self._cut is not None:
            begins, ends = self._cut.index_before(begins), self._cut.index_before(ends - 1) + 1
        return _place(self._source, begins, ends, self._codec, excerpt, self._content)


def html_readings(source: str, codec: str, data: bytes, content: bytes | None = None) -> list[HtmlText]:
    """What a reader may see of an HTML source: all text in it, and the text that is not hidden, where some is. `data`: the source, folded."""
    found = [HtmlText(source, codec, reading, content=content) for reading in readings(visible_text(source), "utf-8")]
    for cut in cuts(source, data):
        found += [HtmlText(source, codec, reading, cut, content) for reading in readings(visible_text(cut.rest), "utf-8")]
    return found


class _JoinedText:
    """A text without the line ends that a reader of its format takes out."""

    __slots__ = ("_codec", "_content", "_cut", "_reading", "_source", "data")

    def __init__(self, source: str, codec: str, reading: UnicodeText, cut: Cut, content: bytes | None) -> None:
        self._source = source
        self._codec = codec
        self._reading = reading
        self._cut = cut
        self._content = content
        self.data = reading.data

    def locate(self, start: int, end: int) -> Place:
        first, last = self._reading.indexes(start, end)
        begins, ends = self._cut.index_before(first), self._cut.index_before(last - 1) + 1
        return _place(self._source, begins, ends, self._codec, self._cut.rest[first:last], self._content)


def joined_lines(text: str, codec: str, taken_out: re.Pattern[str], content: bytes | None) -> list[_JoinedText]:
    """`text` as it reads without these line ends; nothing where there are none."""
    cut = without(text, [found.span() for found in taken_out.finditer(text)])
    if not cut.starts:
        return []
    return [_JoinedText(text, codec, reading, cut, content) for reading in readings(cut.rest, codec)]


def searchable(
    content: bytes,
    charset: str,
    *,
    is_html: bool,
    may_guess: Callable[[int], bool] | None = None,
    taken_out: re.Pattern[str] | None = None,
) -> list[Searchable]:
    """Every reading of a text part: as it stands, in each charset that it may be in, and as a reader sees it when it is HTML. `may_guess`: whether so many
    octets may be read in charsets that nothing but they speaks for; `taken_out`: line ends that its format does not mean."""
    if is_plain_ascii(content, charset):
        texts: list[Searchable] = [PlainText(content)]
        if is_html:
            texts += html_readings(content.decode("ascii"), "ascii", texts[0].data)
        if taken_out is not None:
            texts += joined_lines(content.decode("ascii"), "ascii", taken_out, None)
        return texts
    texts = []
    for text, codec in _decoded(content, charset, is_html=is_html, may_guess=may_guess):
        literal = readings(text, codec, content)
        texts += literal
        if is_html:
            texts += html_readings(text, codec, literal[0].data, content)
        if taken_out is not None:
            texts += joined_lines(text, codec, taken_out, content)
    return texts


def _decoded(content: bytes, charset: str, *, is_html: bool, may_guess: Callable[[int], bool] | None) -> list[tuple[str, str]]:
    decoded = text_readings(content, charset)
    further = [meta] if is_html and (meta := meta_charset(content)) else []
    if has_to_be_guessed(charset, decoded[-1][1]) and (may_guess is None or may_guess(len(content))):
        further += guessed_codecs(content)
    if further:
        known = {codec for _, codec in decoded}
        decoded += [(content.decode(codec, "replace"), codec) for codec in dict.fromkeys(further) if codec not in known]
    return decoded


def _place(text: str, first: int, last: int, codec: str, excerpt: str, content: bytes | None) -> Place:
    if content is None or (codec == "utf-8" and "\ufffd" not in text):
        begin, end = _octets(text, first, codec), _octets(text, last, codec)
    else:
        begin, end = span_of(content, codec, first, last)
    return Place(begin, excerpt, max(end - begin, 0))


def _octets(text: str, index: int, codec: str) -> int:
    """How many octets `text[:index]` takes in `codec`."""
    return len(text[: max(index, 0)].encode(codec, "replace"))


def _unfolded_index(text: str, folded_length: int, folding: Callable[[str], str]) -> int:
    """The least number of characters of `text` that fold to at least `folded_length` characters. Linear in `text`."""
    if text.isascii() and len(folding(text)) == len(text):
        return min(folded_length, len(text))
    done, position = 0, 0
    while position < len(text):
        grown = len(folding(text[position : position + _CHUNK]))
        if done + grown >= folded_length:
            break
        done += grown
        position += _CHUNK
    low, high = 0, min(_CHUNK, len(text) - position)
    while low < high:
        middle = (low + high) // 2
        if done + len(folding(text[position : position + middle])) < folded_length:
            low = middle + 1
        else:
            high = middle
    return position + low
