"""Header rules: a field of the message's own header is there, or one of its occurrences says something.

Fields are compared decoded (RFC 2047, in every reading that clients make of encoded words), unfolded, and folded to one case as keywords are.
A message without a field that some rule names costs one look-up.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from postern_core.policy import HeaderCondition, HeaderMatch, ListKind, Lists
from postern_screener.checks.hit import Hit, Place
from postern_screener.checks.owners import Table
from postern_screener.checks.patterns import Patterns
from postern_screener.checks.phrases import Phrases
from postern_screener.encoded_words import decode_leniently
from postern_screener.text import UnicodeText, fold

if TYPE_CHECKING:
    from postern_screener.message_tree import HeaderBlock

_Criteria = Sequence[tuple[int, HeaderCondition]]


class HeaderCheck:
    """All header rules, by field name."""

    def __init__(self, criteria: Iterable[tuple[int, HeaderCondition]], lists: Lists | None = None) -> None:
        """`criteria`: number and condition. ValueError for what does not compile."""
        by_name: dict[str, list[tuple[int, HeaderCondition]]] = {}
        for criterion, condition in criteria:
            by_name.setdefault(condition.name.strip().lower(), []).append((criterion, condition))
        if "" in by_name:
            raise ValueError("header rule: a field without a name")
        self._fields = {name: _Field(name, of_name, lists or Lists()) for name, of_name in by_name.items()}

    @property
    def compiled_in_s(self) -> float:
        """What it took to compile their phrases, whoever did."""
        return sum(field.compiled_in_s for field in self._fields.values())

    def check(self, fields: Mapping[str, Sequence[str]], block: HeaderBlock) -> Iterator[Hit]:
        """Hits in the fields of a header, which `block` shows as one text."""
        for name, field in self._fields.items():
            for value in fields.get(name, ()):
                yield from field.check(value, block)


class _Field:
    """What rules ask of the fields of one name."""

    def __init__(self, name: str, criteria: _Criteria, lists: Lists) -> None:
        self._name = name
        self._present = [criterion for criterion, condition in criteria if condition.match is HeaderMatch.PRESENT]
        try:
            self._whole = Table()
            for criterion, values in _values(criteria, HeaderMatch.EQUALS, lists, ListKind.PHRASES):
                for value in values:
                    self._whole.add(_words(value), criterion)
            self._phrases = Phrases(
                (n, False, values) for n, values in _values(criteria, HeaderMatch.CONTAINS, lists, ListKind.PHRASES)
            )
            self._patterns = Patterns(_values(criteria, HeaderMatch.REGEX, lists, ListKind.EXPRESSIONS))
            self.compiled_in_s = self._phrases.compiled_in_s
        except ValueError as error:
            raise ValueError(f"header rule on {name}: {error}") from error

    def check(self, value: str, block: HeaderBlock) -> Iterator[Hit]:
        for criterion in self._present:
            yield Hit(criterion, block.part, _locator(block, self._name, value, None))
        for reading in dict.fromkeys((value, decode_leniently(value))):
            text = UnicodeText(reading, "utf-8")
            for criterion in self._whole.get(_words(reading)) if len(self._whole) else ():
                yield Hit(criterion, block.part, _locator(block, self._name, value, None))
            for searched in (self._phrases, self._patterns):
                for number in searched.find(text.data):
                    locate = _locator(block, self._name, value, _place(searched, number, text))
                    for criterion in searched.owners(number):
                        yield Hit(criterion, block.part, locate)


def _values(criteria: _Criteria, match: HeaderMatch, lists: Lists, kind: ListKind) -> Iterator[tuple[int, Iterable[str]]]:
    for criterion, condition in criteria:
        if condition.match is match:
            yield criterion, itertools.chain(condition.values, lists.values(condition.lists, kind))


def _words(value: str) -> str:
    return " ".join(fold(value).split())


def _place(searched: Phrases | Patterns, number: int, text: UnicodeText) -> Callable[[], Place]:
    return lambda: text.locate(*searched.span(number, text.data))


def _locator(block: HeaderBlock, name: str, value: str, inside: Callable[[], Place] | None) -> Callable[[], Place]:
    def locate() -> Place:
        found = Place(0, value, len(value.encode("utf-8", "replace"))) if inside is None else inside()
        for start in re.finditer(rf"^{re.escape(name)}[ \t]*: ", block.text, re.IGNORECASE | re.MULTILINE):
            if block.text.startswith(value, start.end()):
                return found._replace(offset=len(block.text[: start.end()].encode("utf-8", "replace")) + found.offset)
        return found._replace(offset=0)

    return locate
