"""Literal phrases, up to hundreds of thousands: hyperscan databases of plain literals, one pass of each over a text.

Phrases and texts are compared folded (`postern_screener.text`), so caseless; a blank in a phrase stands for any run of white space.
The databases see texts with each run of white space as one blank: with a repetition in the expressions they would take fifty times as long
to compile. They say *that* a phrase occurs; where is looked up only for those that are told of, and whether as a whole word for those that ask.
hyperscan releases the interpreter lock while it compiles and scans, so that neither stops the event loop. Nothing here is an object for
each phrase: 100,000 of them take some 22 MB in all, of which what another revision has as well stands in memory once (`phrase_shards.py`).
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import hyperscan

from postern_screener.checks.owners import Owners
from postern_screener.checks.phrase_shards import literal, shards
from postern_screener.checks.values import Values
from postern_screener.text import fold

MAX_PHRASE_CHARACTERS: Final = 1000
_MARKS: Final = (b"\0", b"\1")  # behind a phrase while they are gathered: as a whole word or not
_SHORT_OCTETS: Final = 64 * 1024
_WHITE_SPACE: Final = bytes(0x20 if byte in b"\t\n\v\f\r" else byte for byte in range(256))


class Phrases:
    """See the module. May be used from several threads: each has its own scratch space."""

    def __init__(self, wanted: Iterable[tuple[int, bool, Iterable[str]]]) -> None:
        """`wanted`: who wants them (a number of the caller's), whether as whole words only, and the phrases. ValueError for a phrase that is
        empty, too long or refused by the compiler."""
        self._owners = Owners()
        different = Values()
        for owner, whole_word, phrases in wanted:
            for phrase in phrases:
                self._owners.add(different.add(_compared(phrase) + _MARKS[whole_word]), owner)
        self._whole = bytes(value[-1] for value in different)
        self.shards = tuple(shards(value[:-1] for value in different))
        self._firsts = tuple(_starts(map(len, self.shards)))
        self.longest_octets = max((len(value) - 1 for value in different), default=0)
        self._of_words = any(b" " in value for value in different)
        self._local = threading.local()

    def __bool__(self) -> bool:
        return bool(self.shards)

    def __len__(self) -> int:
        return len(self._owners)

    @property
    def compiled_in_s(self) -> float:
        """What it took to compile them, whoever did."""
        return sum(each.compiled_in_s for each in self.shards)

    def owners(self, number: int) -> tuple[int, ...]:
        """Who wants this phrase."""
        return self._owners[number]

    def find(self, folded: bytes, is_open: Callable[[tuple[int, ...]], bool] | None = None) -> Iterator[int]:
        """The numbers of the phrases in a folded text, in their order; whether they are whole words is looked up as they come, and only while
        `is_open` says that one of their owners still wants to know."""
        if not self.shards:
            return
        data = _one_blank(folded) if self._of_words else folded
        for number in sorted(self._matched(data)):
            if is_open is not None and not is_open(self._owners[number]):
                continue
            if not self._whole[number] or _stands_somewhere(self._text(number), data):
                yield number

    def span(self, number: int, folded: bytes) -> tuple[int, int]:
        """Where a phrase that was found in a text stands first in it."""
        for match in re.compile(rb"\s+".join(literal(word) for word in self._text(number).split(b" "))).finditer(folded):
            if not self._whole[number] or _stands_alone(folded, *match.span()):
                return match.span()
        return 0, 0

    def _text(self, number: int) -> bytes:
        place = bisect_right(self._firsts, number) - 1
        return self.shards[place][number - self._firsts[place]]

    def _matched(self, data: bytes) -> list[int]:
        found: list[int] = []

        def on_match(phrase: int, _start: int, _end: int, _flags: int, _context: object) -> None:
            found.append(first + phrase)

        if data:
            for first, shard, scratch in zip(self._firsts, self.shards, self._scratches(), strict=True):  # noqa: B007 (on_match takes it)
                shard.database.scan(data, match_event_handler=on_match, scratch=scratch)
        return found

    def _scratches(self) -> list[hyperscan.Scratch]:
        scratches: list[hyperscan.Scratch] | None = getattr(self._local, "scratches", None)
        if scratches is None:
            scratches = self._local.scratches = [hyperscan.Scratch(each.database) for each in self.shards]
        return scratches


def _compared(phrase: str) -> bytes:
    words = fold(phrase).split()
    if not words:
        raise ValueError("a phrase is empty")
    if len(phrase) > MAX_PHRASE_CHARACTERS:
        raise ValueError(f"{phrase[:40]!r}… has over {MAX_PHRASE_CHARACTERS} characters")
    return " ".join(words).encode("utf-8", "replace")


def _starts(lengths: Iterable[int]) -> Iterator[int]:
    at = 0
    for length in lengths:
        yield at
        at += length


def _stands_somewhere(text: bytes, data: bytes) -> bool:
    at = data.find(text)
    while at >= 0:
        if _stands_alone(data, at, at + len(text)):
            return True
        at = data.find(text, at + 1)
    return False


def _stands_alone(data: bytes, start: int, end: int) -> bool:
    """Whether the characters on both sides belong to no word; a UTF-8 character has at most four bytes."""
    before = data[max(0, start - 4) : start].decode("utf-8", "ignore")[-1:]
    after = data[end : end + 4].decode("utf-8", "ignore")[:1]
    return not _is_word(before) and not _is_word(after)


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _one_blank(data: bytes) -> bytes:
    """`data` with each run of white space as one blank, and line ends at both ends gone or not. Linear: the runs halve with each round."""
    if len(data) <= _SHORT_OCTETS:
        # twice as fast as to replace CRLF; but of nothing but line ends the list would be eight times the text
        data = b" ".join(filter(None, data.splitlines()))
    else:
        data = data.replace(b"\r\n", b" ")
    # most texts have none of the others, and to look for an octet costs a twentieth of a pass
    if b"\t" in data or b"\v" in data or b"\f" in data or b"\n" in data or b"\r" in data:
        data = data.translate(_WHITE_SPACE)
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data
