"""Keyword rules: all phrases of all rules in one hyperscan database, one pass over each text (OLD-PRODUCT 2.01-2.04).

Phrases and texts are compared folded (`postern_screener.text`), so caseless; a blank in a phrase stands for any run of white space.
The databases hold plain literals and see texts with each run of white space as one blank: with a repetition in the expressions they would
take fifty times as long to compile. They say *that* a phrase occurs; where, and whether as a whole word, is looked up only for those that do.
hyperscan and the parser release the interpreter lock, so that a large text in a thread does not stop the event loop.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import hyperscan

from postern_core.policy import KeywordCondition, KeywordScope
from postern_screener.checks.hit import Hit, Locate
from postern_screener.text import Searchable, UnicodeText, fold

MAX_PHRASE_CHARACTERS: Final = 1000
_PHRASES_EACH: Final = 10_000  # in a database: the time to compile one grows faster than its size
_SHORT_OCTETS: Final = 64 * 1024
_WHITE_SPACE: Final = bytes(0x20 if byte in b"\t\n\v\f\r" else byte for byte in range(256))


@dataclass(frozen=True, slots=True)
class _Phrase:
    """One phrase as it is searched, with the criteria that want it by scope."""

    text: bytes  # folded UTF-8, words with one blank between them
    whole_word: bool
    in_header: list[int]
    in_body: list[int]


class KeywordCheck:
    """All keyword rules. May be used from several threads: each has its own scratch space."""

    def __init__(self, criteria: Iterable[tuple[int, KeywordCondition]]) -> None:
        """`criteria`: number and condition. ValueError for a phrase that is empty, too long or refused by the compiler."""
        phrases: dict[tuple[str, bool], _Phrase] = {}
        for criterion, condition in criteria:
            for phrase in condition.phrases:
                words = fold(phrase).split()
                if not words:
                    raise ValueError("keyword rule: a phrase is empty")
                if len(phrase) > MAX_PHRASE_CHARACTERS:
                    raise ValueError(f"keyword rule: {phrase[:40]!r}… has over {MAX_PHRASE_CHARACTERS} characters")
                compiled = phrases.setdefault(
                    (" ".join(words), condition.whole_word), _Phrase(" ".join(words).encode(), condition.whole_word, [], [])
                )
                if condition.scope is not KeywordScope.BODY:
                    compiled.in_header.append(criterion)
                if condition.scope is not KeywordScope.HEADER:
                    compiled.in_body.append(criterion)
        self._phrases = tuple(phrases.values())
        self._databases = [_database(self._phrases, first) for first in range(0, len(self._phrases), _PHRASES_EACH)]
        self._of_words = any(b" " in phrase.text for phrase in self._phrases)
        self._in_body = any(phrase.in_body for phrase in self._phrases)
        self._local = threading.local()

    @property
    def wants_body(self) -> bool:
        """Whether any phrase is looked for outside header fields."""
        return self._in_body

    def check_header(self, part: str, texts: Iterable[str], *, is_nested: bool) -> Iterator[Hit]:
        """Hits in the readings of a header block. That of an embedded message is also part of the body that it lies in."""
        if not self._databases:
            return
        for text in texts:
            where: Searchable = UnicodeText(text, "utf-8")
            for phrase in self._found(where.data):
                wanting = sorted({*phrase.in_header, *phrase.in_body}) if is_nested else phrase.in_header
                yield from self._hits(phrase, wanting, part, where)

    def check_text(self, part: str, texts: Iterable[Searchable]) -> Iterator[Hit]:
        """Hits in the readings of one text part."""
        if not self._databases:
            return
        for where in texts:
            for phrase in self._found(where.data):
                yield from self._hits(phrase, phrase.in_body, part, where)

    def _found(self, data: bytes) -> list[_Phrase]:
        found: list[int] = []

        def on_match(phrase: int, _start: int, _end: int, _flags: int, _context: object) -> None:
            found.append(phrase)

        if self._of_words:
            data = _one_blank(data)
        if data:
            for database, scratch in zip(self._databases, self._scratches(), strict=True):
                database.scan(data, match_event_handler=on_match, scratch=scratch)
        return [self._phrases[index] for index in sorted(found)]

    def _scratches(self) -> list[hyperscan.Scratch]:
        scratches: list[hyperscan.Scratch] | None = getattr(self._local, "scratches", None)
        if scratches is None:
            scratches = self._local.scratches = [hyperscan.Scratch(database) for database in self._databases]
        return scratches

    @staticmethod
    def _hits(phrase: _Phrase, wanting: list[int], part: str, where: Searchable) -> Iterator[Hit]:
        if not wanting or (span := _span(phrase, where.data)) is None:
            return
        locate = _locator(where, *span)
        for criterion in wanting:
            yield Hit(criterion, part, locate)


def _locator(where: Searchable, start: int, end: int) -> Locate:
    return lambda: where.locate(start, end)


def _span(phrase: _Phrase, data: bytes) -> tuple[int, int] | None:
    """The first place in `data` where the phrase stands; for whole words, between characters that belong to no word."""
    for match in re.compile(_expression(phrase.text)).finditer(data):
        if not phrase.whole_word or _stands_alone(data, *match.span()):
            return match.span()
    return None


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


def _expression(phrase: bytes) -> bytes:
    """The phrase for `re`, with any white space between its words."""
    return rb"\s+".join(_literal(word) for word in phrase.split(b" "))


def _literal(text: bytes) -> bytes:
    """`text` as an expression that means these bytes and nothing else."""
    return b"".join(b"\\x%02x" % byte for byte in text)


def _database(phrases: tuple[_Phrase, ...], first: int) -> hyperscan.Database:
    """The database of up to `_PHRASES_EACH` phrases from `first`; it reports their places in `phrases`."""
    end = min(first + _PHRASES_EACH, len(phrases))
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        database.compile(
            expressions=[_literal(phrase.text) for phrase in phrases[first:end]],
            ids=list(range(first, end)),
            elements=end - first,
            # one report a phrase and scan: texts full of one phrase cost no more than others
            flags=[hyperscan.HS_FLAG_SINGLEMATCH] * (end - first),
        )
    except hyperscan.error as error:
        raise ValueError(f"keyword rules do not compile: {error}") from error
    return database
