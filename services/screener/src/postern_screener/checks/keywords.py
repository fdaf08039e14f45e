"""Keyword rules: all phrases and all regular expressions of all rules searched in one pass over each text (OLD-PRODUCT 2.01-2.04).

What is searched, and how, is in `phrases.py` and `patterns.py`; here stands who wants which of them where: in the header, the body, or what
attachments say. A criterion may ask for several different ones in the message; whoever collects the hits counts them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from postern_core.policy import KeywordCondition, KeywordScope, ListKind, Lists
from postern_screener.checks.hit import Hit, Locate
from postern_screener.checks.patterns import Patterns
from postern_screener.checks.phrases import Phrases
from postern_screener.text import Searchable, readings


class Region:
    """What a text is part of, as bits. Plain numbers: several are compared for each text, and an enum takes a microsecond for each."""

    HEADER: Final = 1  # the message's own header
    BODY: Final = 2
    ATTACHMENT: Final = 4


_PLACES: Final = {
    KeywordScope.HEADER: Region.HEADER,
    KeywordScope.BODY: Region.BODY,
    KeywordScope.BOTH: Region.HEADER | Region.BODY,
    KeywordScope.ATTACHMENTS: Region.ATTACHMENT,
    KeywordScope.ALL: Region.HEADER | Region.BODY | Region.ATTACHMENT,
}


@dataclass(frozen=True, slots=True)
class _Wish:
    criterion: int
    places: int


class KeywordCheck:
    """All keyword rules. May be used from several threads. `at_least`: the criteria that ask for several, and how many; `in_attachments`: those
    that ask for what attachments say."""

    def __init__(self, criteria: Iterable[tuple[int, KeywordCondition]], lists: Lists | None = None) -> None:
        """`criteria`: number and condition. ValueError for what does not compile."""
        listed = lists or Lists()
        wishes, conditions = [], []
        for criterion, condition in criteria:
            wishes.append(_Wish(criterion, _PLACES[condition.scope]))
            conditions.append(condition)
        self._wishes = tuple(wishes)
        self.at_least = {
            wish.criterion: condition.at_least
            for wish, condition in zip(wishes, conditions, strict=True)
            if condition.at_least > 1
        }
        self.in_attachments = frozenset(wish.criterion for wish in wishes if wish.places & Region.ATTACHMENT)
        try:
            self._phrases = Phrases(
                (n, each.whole_word, _all(each.phrases, listed.values(each.lists, ListKind.PHRASES, ListKind.EXPRESSIONS)))
                for n, each in enumerate(conditions)
            )
            self._patterns = Patterns(
                (n, _all(each.expressions, listed.values(each.lists, ListKind.EXPRESSIONS, ListKind.PHRASES)))
                for n, each in enumerate(conditions)
            )
        except ValueError as error:
            raise ValueError(f"keyword rule: {error}") from error
        self.compiled_in_s = self._phrases.compiled_in_s
        self.longest_octets = self._phrases.longest_octets  # of a phrase, folded
        self._wanted = 0
        for wish in wishes:
            self._wanted |= wish.places

    def wants(self, place: int) -> bool:
        """Whether anybody looks in any of these regions."""
        return bool(self._wanted & place)

    def check_header(self, part: str, texts: Iterable[str], *, is_nested: bool, done: Container[int] = ()) -> Iterator[Hit]:
        """Hits in the readings of a header block. That of an embedded message is also part of the body and the attachment that it is."""
        place = Region.HEADER | Region.BODY | Region.ATTACHMENT if is_nested else Region.HEADER
        if self._wanted & place:
            yield from self.check_text(part, (reading for text in texts for reading in readings(text, "utf-8")), place, done)

    def check_text(
        self,
        part: str,
        texts: Iterable[Searchable],
        place: int,
        done: Container[int] = (),
        chain: tuple[str, ...] = (),
    ) -> Iterator[Hit]:
        """Hits in the readings of one text, which `chain` leads to in an archive. Criteria in `done`, which may grow meanwhile, need no more of
        them."""

        def is_open(owners: tuple[int, ...]) -> bool:
            return any(self._wishes[owner].places & place and self._wishes[owner].criterion not in done for owner in owners)

        for where in texts:
            data = where.data
            for number in self._phrases.find(data, is_open):
                yield from self._hits(self._phrases, number, number, part, where, place, done, chain)
            for number in self._patterns.find(data):
                yield from self._hits(self._patterns, number, -1 - number, part, where, place, done, chain)

    def _hits(
        self,
        searched: Phrases | Patterns,
        number: int,
        value: int,
        part: str,
        where: Searchable,
        place: int,
        done: Container[int],
        chain: tuple[str, ...],
    ) -> Iterator[Hit]:
        locate: Locate | None = None
        for owner in searched.owners(number):
            wish = self._wishes[owner]
            if not wish.places & place or wish.criterion in done:
                continue
            locate = locate or _locator(searched, number, where)
            yield Hit(wish.criterion, part, locate, chain, value)


def _all(own: Iterable[str], listed: Iterable[str]) -> Iterator[str]:
    yield from own
    yield from listed


def _locator(searched: Phrases | Patterns, number: int, where: Searchable) -> Locate:
    return lambda: where.locate(*searched.span(number, where.data))
