"""The texts of one message in every reading, within bounds: of very large ones all that costs little, and of the rest the beginning.

What bounds the time is how much is decoded, MAX_TEXT octets of a message, and of how much the charset is guessed, MAX_GUESSED; what bounds the memory is that a large ASCII text in an archive is read
piece by piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, NamedTuple

from postern_screener.charsets import is_plain_ascii
from postern_screener.checks.hit import Place
from postern_screener.text import PlainText, Searchable, searchable

MAX_TEXT: Final = 16 * 1024 * 1024  # octets of a message's HTML and text in other charsets than ASCII: a second of work
CUT: Final = f"more than {MAX_TEXT} octets of text to decode"
MAX_GUESSED: Final = 512 * 1024  # octets of text whose charset has to be guessed: it is read in fifteen
GUESSED: Final = f"more than {MAX_GUESSED} octets of text in charsets that have to be guessed"
PIECE: Final = 4 * 1024 * 1024
OVERLAP: Final = 64 * 1024  # no phrase is as long, with the white space in it
_SMALL_TEXT: Final = 64 * 1024  # octets; parts of this size are not counted


class Reading(NamedTuple):
    """Every reading of a text. `limits`: over which it is (CUT, GUESSED), so that there may be more to read than was read."""

    texts: Iterable[Searchable]
    limits: tuple[str, ...] = ()


class BoundedTexts:
    """Reads the texts of one message."""

    def __init__(self) -> None:
        self._decoded = 0  # octets of text that took decoding
        self._guessed = 0  # octets of text whose charset had to be guessed

    def read(self, content: bytes, charset: str, *, is_html: bool, taken_out: re.Pattern[str] | None = None) -> Reading:
        """A text at once. `taken_out`: line ends that its format does not mean."""
        texts, limits = self._read(content, charset, is_html=is_html, taken_out=taken_out)
        if CUT in limits and is_plain_ascii(content, charset):
            texts.append(PlainText(content))
        return Reading(texts, limits)

    def read_in_pieces(self, content: bytes, charset: str, *, is_html: bool) -> Reading:
        """A text that may be large, of which each piece is let go before the next one is read."""
        if len(content) <= PIECE or not is_plain_ascii(content, charset):
            return self.read(content, charset, is_html=is_html)
        if not is_html:
            return Reading(_pieces(content))
        texts, limits = self._read(content, charset, is_html=True)
        return Reading(chain(_pieces(content), texts[1:]), limits)  # the first is the text as it stands

    def _read(
        self, content: bytes, charset: str, *, is_html: bool, taken_out: re.Pattern[str] | None = None
    ) -> tuple[list[Searchable], tuple[str, ...]]:
        limits: list[str] = []
        left = len(content)
        if left > _SMALL_TEXT and (is_html or not is_plain_ascii(content, charset)):
            left = max(MAX_TEXT - self._decoded, 0)
            self._decoded += len(content)
            if left < len(content):
                limits.append(CUT)
                content = content[:left]

        def may_guess(octets: int) -> bool:
            self._guessed += octets
            if self._guessed > MAX_GUESSED:
                limits.append(GUESSED)
            return self._guessed <= MAX_GUESSED

        texts = searchable(content, charset, is_html=is_html, may_guess=may_guess, taken_out=taken_out)
        return texts, tuple(limits)


class _Piece:
    """A piece of an ASCII text."""

    __slots__ = ("_start", "_text", "data")

    def __init__(self, content: bytes, start: int) -> None:
        self._text = PlainText(content)
        self._start = start
        self.data = self._text.data

    def locate(self, start: int, end: int) -> Place:
        place = self._text.locate(start, end)
        return place._replace(offset=place.offset + self._start)


def _pieces(content: bytes) -> Iterator[Searchable]:
    """Overlapping, each from the beginning of a line where there is one in the overlap, so that no word is cut."""
    start = 0
    while True:
        end = start + PIECE
        yield _Piece(content[start:end], start)
        if end >= len(content):
            return
        start = content.find(b"\n", end - OVERLAP, end - OVERLAP // 2) + 1 or end - OVERLAP
