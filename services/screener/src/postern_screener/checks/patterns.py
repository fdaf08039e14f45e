"""Regular expressions of all rules in one hyperscan database, one pass over each folded text. CRLF is two line feeds for them, so that `$` stands
at the end of a line and no offset changes.

Where one matches is looked up only when it is told of, by a database of that expression alone that keeps track of where matches begin.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from typing import Final

import hyperscan

from postern_core.expressions import MAX_EXPRESSION_CHARACTERS, MAX_EXPRESSIONS, compile_expressions
from postern_screener.checks.owners import Owners

_LONGER: Final = 200  # matches that begin at the same place and are looked at for the longest one


class Patterns:
    """See the module. May be used from several threads."""

    def __init__(self, wanted: Iterable[tuple[int, Iterable[str]]]) -> None:
        """`wanted`: who wants them (a number of the caller's), and the expressions. ValueError for those that are too many, too long or do not
        compile."""
        self._owners = Owners()
        numbers: dict[str, int] = {}
        for owner, expressions in wanted:
            for expression in expressions:
                if len(expression) > MAX_EXPRESSION_CHARACTERS:
                    raise ValueError(f"expression {expression[:40]!r}… has over {MAX_EXPRESSION_CHARACTERS} characters")
                self._owners.add(numbers.setdefault(expression, len(numbers)), owner)
        if len(numbers) > MAX_EXPRESSIONS:
            raise ValueError(f"{len(numbers)} regular expressions: at most {MAX_EXPRESSIONS} are possible")
        self._expressions = tuple(numbers)
        try:
            self._database = compile_expressions(self._expressions) if self._expressions else None
        except ValueError as error:
            raise ValueError(f"regular expressions do not compile: {error}") from error
        self._local = threading.local()

    def __bool__(self) -> bool:
        return bool(self._expressions)

    def owners(self, number: int) -> tuple[int, ...]:
        """Who wants this expression."""
        return self._owners[number]

    def find(self, folded: bytes) -> list[int]:
        """The numbers of the expressions that match somewhere in a folded text, in their order."""
        if self._database is None or not folded:
            return []
        found: set[int] = set()

        def on_match(expression: int, _start: int, _end: int, _flags: int, _context: object) -> None:
            found.add(expression)

        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = hyperscan.Scratch(self._database)
        self._database.scan(_lines(folded), match_event_handler=on_match, scratch=scratch)
        return sorted(found)

    def span(self, number: int, folded: bytes) -> tuple[int, int]:
        """Where the first match of an expression that was found stands, as far as it goes on."""
        text = _lines(folded)
        try:
            return _first_match(compile_expressions([self._expressions[number]], with_start=True), text)
        except ValueError:
            # too large to keep track of its beginnings
            end = _first_match(compile_expressions([self._expressions[number]]), text)[1]
            return max(0, end - 1), end


def _lines(folded: bytes) -> bytes:
    return folded.replace(b"\r\n", b"\n\n")


def _first_match(database: hyperscan.Database, text: bytes) -> tuple[int, int]:
    matches: list[tuple[int, int]] = []

    def on_match(_expression: int, start: int, end: int, _flags: int, _context: object) -> bool:
        if matches and (start != matches[0][0] or len(matches) > _LONGER):
            return True
        matches.append((start, end))
        return False

    with contextlib.suppress(hyperscan.ScanTerminated):
        database.scan(text, match_event_handler=on_match, scratch=hyperscan.Scratch(database))
    return max(matches, default=(0, 0))
