"""Keyword rules: all phrases of all rules in one hyperscan database, one pass over each text (OLD-PRODUCT 2.01-2.04).

Phrases and texts are compared folded (`postern_screener.text`), so caseless; a blank in a phrase stands for any run of white space.
The database says *that* a phrase occurs; where, and whether as a whole word, is looked up only for those that do.
hyperscan and the parser release the interpreter lock, so that a large text in a thread does not stop the event loop.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import hyperscan

from postern_core.policy import KeywordCondition, KeywordScope
from postern_screener.checks.hit import Hit
from postern_screener.text import Searchable, UnicodeText, fold

MAX_PHRASE_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True)
class _Phrase:
    """One phrase as it is searched, with the rules that want it by scope."""

    expression: bytes  # for `re`, over folded UTF-8
    whole_word: bool
    in_header: list[int]
    in_body: list[int]


class KeywordCheck:
    """All keyword rules. May be used from several threads: each has its own scratch space."""

    def __init__(self, rules: Iterable[tuple[int, KeywordCondition]]) -> None:
        """`rules`: index and condition. ValueError for a phrase that is empty, too long or refused by the compiler."""
        phrases: dict[tuple[str, bool], _Phrase] = {}
        for rule, condition in rules:
            for phrase in condition.phrases:
                words = fold(phrase).split()
                if not words:
                    raise ValueError("keyword rule: a phrase is empty")
                if len(phrase) > MAX_PHRASE_CHARACTERS:
                    raise ValueError(f"keyword rule: {phrase[:40]!r}… has over {MAX_PHRASE_CHARACTERS} characters")
                compiled = phrases.setdefault(
                    (" ".join(words), condition.whole_word), _Phrase(_expression(words), condition.whole_word, [], [])
                )
                if condition.scope is not KeywordScope.BODY:
                    compiled.in_header.append(rule)
                if condition.scope is not KeywordScope.HEADER:
                    compiled.in_body.append(rule)
        self._phrases = tuple(phrases.values())
        self._database = _database(self._phrases) if self._phrases else None
        self._in_body = any(phrase.in_body for phrase in self._phrases)
        self._local = threading.local()

    @property
    def wants_body(self) -> bool:
        """Whether any phrase is looked for outside header fields."""
        return self._in_body

    def check_header(self, part: str, text: str, *, is_nested: bool) -> Iterator[Hit]:
        """Hits in a header block. That of an embedded message is also part of the body that it lies in."""
        if self._database is None or not text:
            return
        where: Searchable = UnicodeText(text, "utf-8")
        for phrase in self._found(where.data):
            rules = sorted({*phrase.in_header, *phrase.in_body}) if is_nested else phrase.in_header
            yield from self._hits(phrase, rules, part, where)

    def check_text(self, part: str, texts: Iterable[Searchable]) -> Iterator[Hit]:
        """Hits in the readings of one text part."""
        if self._database is None:
            return
        for where in texts:
            for phrase in self._found(where.data):
                yield from self._hits(phrase, phrase.in_body, part, where)

    def _found(self, data: bytes) -> list[_Phrase]:
        database = self._database
        assert database is not None
        found: list[int] = []

        def on_match(phrase: int, _start: int, _end: int, _flags: int, _context: object) -> None:
            found.append(phrase)

        database.scan(data, match_event_handler=on_match, scratch=self._scratch(database))
        return [self._phrases[index] for index in sorted(found)]

    def _scratch(self, database: hyperscan.Database) -> hyperscan.Scratch:
        scratch: hyperscan.Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = hyperscan.Scratch(database)
        return scratch

    @staticmethod
    def _hits(phrase: _Phrase, rules: list[int], part: str, where: Searchable) -> Iterator[Hit]:
        if not rules or (span := _span(phrase, where.data)) is None:
            return
        locate = _locator(where, *span)
        for rule in rules:
            yield Hit(rule, part, locate)


def _locator(where: Searchable, start: int, end: int) -> Callable[[], tuple[int, str]]:
    return lambda: where.locate(start, end)


def _span(phrase: _Phrase, data: bytes) -> tuple[int, int] | None:
    """The first place in `data` where the phrase stands; for whole words, between characters that belong to no word."""
    for match in re.compile(phrase.expression).finditer(data):
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


def _expression(words: list[str]) -> bytes:
    """The words as bytes, each escaped, with any white space between them; hyperscan and `re` read it alike."""
    return rb"\s+".join(b"".join(b"\\x%02x" % byte for byte in word.encode("utf-8")) for word in words)


def _database(phrases: tuple[_Phrase, ...]) -> hyperscan.Database:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        database.compile(
            expressions=[phrase.expression for phrase in phrases],
            ids=list(range(len(phrases))),
            elements=len(phrases),
            # one report a phrase and scan: texts full of one phrase cost no more than others
            flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(phrases),
        )
    except hyperscan.error as error:
        raise ValueError(f"keyword rules do not compile: {error}") from error
    return database
