"""Literal phrases, up to hundreds of thousands: hyperscan databases of plain literals, one pass of each over a text.

Phrases and texts are compared folded (`postern_screener.text`), so caseless; a blank in a phrase stands for any run of white space.
The databases see texts with each run of white space as one blank: with a repetition in the expressions they would take fifty times as long
to compile. They say *that* a phrase occurs; where is looked up only for those that are told of, and whether as a whole word for those that ask.
hyperscan releases the interpreter lock while it compiles and scans, so that neither stops the event loop. Nothing here is an object for
each phrase: 100,000 of them take some 25 MB in all.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import hyperscan

from postern_screener.checks.owners import Owners
from postern_screener.text import fold

MAX_PHRASE_CHARACTERS: Final = 1000
_PHRASES_EACH: Final = 10_000  # in a database: the time to compile one grows faster than its size
_SHORT_OCTETS: Final = 64 * 1024
_WHITE_SPACE: Final = bytes(0x20 if byte in b"\t\n\v\f\r" else byte for byte in range(256))


class Phrases:
    """See the module. May be used from several threads: each has its own scratch space."""

    def __init__(self, wanted: Iterable[tuple[int, bool, Iterable[str]]]) -> None:
        """`wanted`: who wants them (a number of the caller's), whether as whole words only, and the phrases. ValueError for a phrase that is
        empty, too long or refused by the compiler."""
        self._owners = Owners()
        self._whole = bytearray()
        numbers: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        texts: list[bytes] = []
        for owner, whole_word, phrases in wanted:
            known = numbers[whole_word]
            for phrase in phrases:
                text = _compared(phrase)
                number = known.setdefault(text, len(texts))
                if number == len(texts):
                    texts.append(text)
                    self._whole.append(whole_word)
                self._owners.add(number, owner)
        del numbers
        self.longest_octets = max(map(len, texts), default=0)
        self._of_words = any(b" " in text for text in texts)
        self._ends = array("I", _running(map(len, texts)))
        self._texts = b"".join(texts)
        self._databases = [
            _database(texts[first : first + _PHRASES_EACH], first) for first in range(0, len(texts), _PHRASES_EACH)
        ]
        self._local = threading.local()

    def __bool__(self) -> bool:
        return bool(self._databases)

    def __len__(self) -> int:
        return len(self._owners)

    def owners(self, number: int) -> tuple[int, ...]:
        """Who wants this phrase."""
        return self._owners[number]

    def find(self, folded: bytes, is_open: Callable[[tuple[int, ...]], bool] | None = None) -> Iterator[int]:
        """The numbers of the phrases in a folded text, in their order; whether they are whole words is looked up as they come, and only while
        `is_open` says that one of their owners still wants to know."""
        if not self._databases:
            return
        data = _one_blank(folded) if self._of_words else folded
        for number in sorted(self._matched(data)):
            if is_open is not None and not is_open(self._owners[number]):
                continue
            if not self._whole[number] or _stands_somewhere(self._text(number), data):
                yield number

    def span(self, number: int, folded: bytes) -> tuple[int, int]:
        """Where a phrase that was found in a text stands first in it."""
        for match in re.compile(rb"\s+".join(_literal(word) for word in self._text(number).split(b" "))).finditer(folded):
            if not self._whole[number] or _stands_alone(folded, *match.span()):
                return match.span()
        return 0, 0

    def _text(self, number: int) -> bytes:
        return self._texts[self._ends[number - 1] if number else 0 : self._ends[number]]

    def _matched(self, data: bytes) -> list[int]:
        found: list[int] = []

        def on_match(phrase: int, _start: int, _end: int, _flags: int, _context: object) -> None:
            found.append(phrase)

        if data:
            for database, scratch in zip(self._databases, self._scratches(), strict=True):
                database.scan(data, match_event_handler=on_match, scratch=scratch)
        return found

    def _scratches(self) -> list[hyperscan.Scratch]:
        scratches: list[hyperscan.Scratch] | None = getattr(self._local, "scratches", None)
        if scratches is None:
            scratches = self._local.scratches = [hyperscan.Scratch(database) for database in self._databases]
        return scratches


def _compared(phrase: str) -> bytes:
    words = fold(phrase).split()
    if not words:
        raise ValueError("a phrase is empty")
    if len(phrase) > MAX_PHRASE_CHARACTERS:
        raise ValueError(f"{phrase[:40]!r}… has over {MAX_PHRASE_CHARACTERS} characters")
    return " ".join(words).encode("utf-8", "replace")


def _running(lengths: Iterable[int]) -> Iterator[int]:
    end = 0
    for length in lengths:
        end += length
        yield end


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
    data = data.translate(_WHITE_SPACE)
    while len(shorter := data.replace(b"  ", b" ")) < len(data):
        data = shorter
    return data


def _literal(text: bytes) -> bytes:
    """`text` as an expression that means these bytes and nothing else."""
    return b"".join(b"\\x%02x" % byte for byte in text)


def _database(texts: list[bytes], first: int) -> hyperscan.Database:
    """A database that reports these phrases by their numbers, which begin with `first`."""
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        database.compile(
            expressions=[_literal(text) for text in texts],
            ids=list(range(first, first + len(texts))),
            elements=len(texts),
            # one report a phrase and scan: texts full of one phrase cost no more than others
            flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(texts),
        )
    except hyperscan.error as error:
        raise ValueError(f"phrases do not compile: {error}") from error
    return database
