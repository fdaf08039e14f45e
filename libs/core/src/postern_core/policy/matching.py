"""Rules as they are judged: their criteria numbered, those that may match a message found without asking all of them.

Pure. The screener judges live mail so; the api judges again what the screener wrote down of a message (`why_not`), with the same rules in the
same order, and so comes to the same outcome without seeing the mail.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from postern_core.policy.conditions import (
    ENGINE_OF,
    AttachmentCondition,
    AuthenticationCondition,
    CharsetCondition,
    ClientCondition,
    Criterion,
    DirectionCondition,
    LanguageCondition,
    RecipientCondition,
    ScheduleCondition,
    ScriptCondition,
    SizeCondition,
    UserCondition,
)
from postern_core.policy.expressions import Expression, Truth, expression
from postern_core.policy.screening import Rule

# criteria that are no part of the one search through a message: looked at when a rule comes to them, and perhaps never
LAZY: Final = (
    RecipientCondition,
    ScheduleCondition,
    DirectionCondition,
    ClientCondition,
    UserCondition,
    SizeCondition,
    *ENGINE_OF,
    AuthenticationCondition,
    CharsetCondition,
    ScriptCondition,
    LanguageCondition,
)
_KEY_OCTETS: Final = 6


def is_lazy(criterion: Criterion) -> bool:
    """Whether it is looked at when a rule comes to it, rather than searched for in every message."""
    return isinstance(criterion, LAZY) or (isinstance(criterion, AttachmentCondition) and criterion.needs_content)


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule, and its conditions as they are judged."""

    rule: Rule
    condition: Expression
    unless: Expression | None

    def matches(self, truth: Truth) -> bool | None:
        """Whether it does; None when that depends on something that is not known yet."""
        judged = self.condition.judge(truth)
        if self.unless is None or judged is False:
            return judged
        excepted = self.unless.judge(truth)
        if excepted is None:
            return None
        return False if excepted else judged

    def undecided(self, truth: Truth) -> Iterator[int]:
        """The criteria that stand between it and a decision, where `matches` gives None."""
        yield from self.condition.undecided(truth)
        if self.unless is not None:
            yield from self.unless.undecided(truth)

    def criteria(self) -> set[int]:
        """Those that it asks about."""
        return {*self.condition.criteria(), *(self.unless.criteria() if self.unless is not None else ())}


class NumberedRules:
    """Rules in order, and `criteria` by their numbers: each distinct one once, however many rules have it."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        numbers: dict[Criterion, int] = {}

        def number(criterion: Criterion) -> int:
            return numbers.setdefault(criterion, len(numbers))

        self.rules = tuple(_compiled(rule, number) for rule in rules)
        self.numbers = numbers
        self.criteria = tuple(numbers)
        self._keys: dict[int, str] = {}
        self._always: list[int] = []  # rules that may match a message in which nothing was found
        self._finding: dict[int, list[int]] = {}  # criterion → the other rules that it is in
        for place, rule in enumerate(self.rules):
            if rule.condition.judge(lambda n: None if is_lazy(self.criteria[n]) else False) is not False:
                self._always.append(place)
                continue
            for criterion in dict.fromkeys(rule.condition.criteria()):
                self._finding.setdefault(criterion, []).append(place)

    def candidates(self, found: Iterable[int]) -> list[CompiledRule]:
        """The rules that may match a message in which these criteria were found, in order: of a thousand rules mostly none."""
        places = set(self._always)
        for criterion in found:
            places.update(self._finding.get(criterion, ()))
        return [self.rules[place] for place in sorted(places)]

    def key(self, number: int) -> str:
        """What a criterion is called in a record: the same in every revision that has it. Made when it is first asked for: a criterion may
        be a list of 100,000 phrases."""
        key = self._keys.get(number)
        if key is None:
            key = self._keys[number] = criterion_key(self.criteria[number])
        return key


def criterion_key(criterion: Criterion) -> str:
    """Eight characters that tell a criterion from others by what it says. Fields at their defaults do not count, so that a field that a later
    version adds changes no key."""
    said = {
        field.name: value
        for field in msgspec.structs.fields(criterion)
        if (value := getattr(criterion, field.name)) != field.default
    }
    text = msgspec.json.encode((type(criterion).__struct_config__.tag, said))
    return base64.urlsafe_b64encode(hashlib.blake2b(text, digest_size=_KEY_OCTETS).digest()).decode()


def _compiled(rule: Rule, number: Callable[[Criterion], int]) -> CompiledRule:
    unless = None if rule.unless is None else expression(rule.unless, number)
    return CompiledRule(rule, expression(rule.condition, number), unless)
