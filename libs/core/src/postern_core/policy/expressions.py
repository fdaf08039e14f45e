"""Conditions as they are judged: trees over numbered criteria, with a third truth for what nobody knows yet (an engine that was not asked).

Pure. Parts are judged in the order in which they are written, so that the same message always gives the same explanation. `judge` says whether a
condition holds, `reasons` which criteria that hold made it so, `criteria` which ones it asks about, `undecided` which unknown ones it depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from postern_core.policy.conditions import AllOf, AnyOf, Condition, Criterion, Not

Truth = Callable[[int], bool | None]  # of a criterion by its number; None: not known yet


@dataclass(frozen=True, slots=True)
class Single:
    """One criterion."""

    criterion: int

    def judge(self, truth: Truth) -> bool | None:
        return truth(self.criterion)

    def criteria(self) -> Iterator[int]:
        yield self.criterion

    def reasons(self, _truth: Truth) -> Iterator[int]:
        yield self.criterion

    def undecided(self, truth: Truth) -> Iterator[int]:
        if truth(self.criterion) is None:
            yield self.criterion


@dataclass(frozen=True, slots=True)
class Every:
    """All parts; without any it holds."""

    parts: tuple[Expression, ...]

    def judge(self, truth: Truth) -> bool | None:
        known: bool | None = True
        for part in self.parts:
            judged = part.judge(truth)
            if judged is False:
                return False
            if judged is None:
                known = None
        return known

    def criteria(self) -> Iterator[int]:
        for part in self.parts:
            yield from part.criteria()

    def reasons(self, truth: Truth) -> Iterator[int]:
        for part in self.parts:
            yield from part.reasons(truth)

    def undecided(self, truth: Truth) -> Iterator[int]:
        if self.judge(truth) is None:
            for part in self.parts:
                yield from part.undecided(truth)


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part."""

    parts: tuple[Expression, ...]

    def judge(self, truth: Truth) -> bool | None:
        known: bool | None = False
        for part in self.parts:
            judged = part.judge(truth)
            if judged:
                return True
            if judged is None:
                known = None
        return known

    def criteria(self) -> Iterator[int]:
        for part in self.parts:
            yield from part.criteria()

    def reasons(self, truth: Truth) -> Iterator[int]:
        for part in self.parts:
            if part.judge(truth):
                yield from part.reasons(truth)

    def undecided(self, truth: Truth) -> Iterator[int]:
        if self.judge(truth) is None:
            for part in self.parts:
                yield from part.undecided(truth)


@dataclass(frozen=True, slots=True)
class Opposite:
    """Not its part."""

    part: Expression

    def judge(self, truth: Truth) -> bool | None:
        judged = self.part.judge(truth)
        return None if judged is None else not judged

    def criteria(self) -> Iterator[int]:
        yield from self.part.criteria()

    def reasons(self, _truth: Truth) -> Iterator[int]:
        yield from ()  # what is not there stands nowhere

    def undecided(self, truth: Truth) -> Iterator[int]:
        yield from self.part.undecided(truth)


Expression = Single | Every | Some | Opposite


def expression(condition: Condition, number: Callable[[Criterion], int]) -> Expression:
    """`condition` as it is judged; `number` gives each criterion its number."""
    match condition:
        case AllOf(of=parts):
            return Every(tuple(expression(part, number) for part in parts))
        case AnyOf(of=parts):
            return Some(tuple(expression(part, number) for part in parts))
        case Not(of=part):
            return Opposite(expression(part, number))
        case _:
            return Single(number(condition))
