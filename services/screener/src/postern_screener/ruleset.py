"""Policy → compiled rules: what a worker keeps in memory for one revision. Compiled off the loop, swapped whole, never changed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from postern_core.bus.topology import checked_route_name
from postern_core.policy import (
    ENGINE_OF,
    AttachmentCondition,
    Condition,
    Criterion,
    DomainTable,
    KeywordCondition,
    MalformedCondition,
    RecipientCondition,
    Rule,
    ScreeningPolicy,
    SenderCondition,
)
from postern_core.policy.address_patterns import AddressPatterns
from postern_core.policy.conditions import MOST_NESTED, criteria, nesting
from postern_core.policy.domains import normalise_domain
from postern_core.verdict import Action, Engine
from postern_screener.checks.attachments import AttachmentCheck
from postern_screener.checks.engines import engine_look
from postern_screener.checks.keywords import KeywordCheck
from postern_screener.checks.properties import property_of
from postern_screener.checks.senders import SenderCheck
from postern_screener.engines.yara import Yara
from postern_screener.expressions import Expression, Truth, expression


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


class Ruleset:
    """One compiled revision. Safe to use from several threads. `properties`, `recipients` and `malformed` name criteria by their
    numbers."""

    def __init__(self, policy: ScreeningPolicy) -> None:
        """ValueError names what does not compile."""
        started = time.perf_counter()
        _check_limits(policy)
        self.policy = policy
        self.revision = policy.revision
        numbers: dict[Criterion, int] = {}

        def number(criterion: Criterion) -> int:
            return numbers.setdefault(criterion, len(numbers))

        self.rules = tuple(_compiled(rule, number, policy.engines.enabled) for rule in policy.rules)
        self.senders = SenderCheck((n, c) for c, n in numbers.items() if isinstance(c, SenderCondition))
        self.attachments = AttachmentCheck((n, c) for c, n in numbers.items() if isinstance(c, AttachmentCondition))
        self.keywords = KeywordCheck((n, c) for c, n in numbers.items() if isinstance(c, KeywordCondition))
        self.malformed = numbers.get(MalformedCondition())
        looks = {n: property_of(c) for c, n in numbers.items()}
        self.properties = {n: look for n, look in looks.items() if look is not None}
        self.recipients = {n: AddressPatterns(c.patterns) for c, n in numbers.items() if isinstance(c, RecipientCondition)}
        self.engines = {n: look for c, n in numbers.items() if (look := engine_look(c)) is not None}
        self.yara = Yara(policy.engines.yara) if policy.engines.yara.enabled else None
        self._always: list[int] = []  # rules that may match a message in which nothing was found
        self._finding: dict[int, list[int]] = {}  # criterion → the other rules that it is in
        self._index()
        self._routes = DomainTable((domain.pattern, domain.route or policy.default_route) for domain in policy.relay_domains)
        self.compiled_in_s = time.perf_counter() - started

    def _index(self) -> None:
        for place, rule in enumerate(self.rules):
            if rule.condition.judge(self._may_hold) is not False:
                self._always.append(place)
                continue
            for criterion in dict.fromkeys(rule.condition.criteria()):
                self._finding.setdefault(criterion, []).append(place)

    def _may_hold(self, criterion: int) -> bool | None:
        """Before anything was searched for: what is not found does not hold, and of what is looked at or asked nobody knows."""
        return None if criterion in self.properties or criterion in self.recipients or criterion in self.engines else False

    def candidates(self, found: Iterable[int]) -> list[CompiledRule]:
        """The rules that may match a message in which these criteria were found, in order: of a thousand rules mostly none."""
        places = set(self._always)
        for criterion in found:
            places.update(self._finding.get(criterion, ()))
        return [self.rules[place] for place in sorted(places)]

    def route_of(self, domain: str) -> str:
        """The route that mail for `domain` takes."""
        return self._routes.find(domain) or self.policy.default_route


def compile_policy(policy: ScreeningPolicy) -> Ruleset:
    """The ruleset of `policy`; ValueError when it does not compile, also for want of memory: the last good one then stays in force."""
    try:
        return Ruleset(policy)
    except MemoryError as error:
        raise ValueError("the rules take more memory than this process may use") from error


def _compiled(rule: Rule, number: Callable[[Criterion], int], enabled: frozenset[Engine]) -> CompiledRule:
    if rule.action is Action.FORWARD:
        _check_forward(rule)
    for condition in (rule.condition, rule.unless):
        if condition is None:
            continue
        if nesting(condition) > MOST_NESTED:
            raise ValueError(f"rule {rule.name!r}: conditions nest deeper than {MOST_NESTED} levels")
        _check_engines(rule, condition, enabled)
    unless = None if rule.unless is None else expression(rule.unless, number)
    return CompiledRule(rule, expression(rule.condition, number), unless)


def _check_engines(rule: Rule, condition: Condition, enabled: frozenset[Engine]) -> None:
    """A condition that nobody answers would let pass what it was written against."""
    for criterion in criteria(condition):
        if (engine := ENGINE_OF.get(type(criterion))) is not None and engine not in enabled:
            raise ValueError(f"rule {rule.name!r}: it asks {engine.value}, which is off")


def _check_limits(policy: ScreeningPolicy) -> None:
    # a limit of nothing would convict every message
    if policy.max_deliveries < 1:
        raise ValueError(f"max_deliveries is {policy.max_deliveries}, at least 1 is needed")
    if not (math.isfinite(policy.screening_timeout_s) and policy.screening_timeout_s > 0):
        raise ValueError(f"screening_timeout_s is {policy.screening_timeout_s}, it must be over 0")
    for route in {policy.default_route, *(domain.route for domain in policy.relay_domains if domain.route)}:
        checked_route_name(route)


def _check_forward(rule: Rule) -> None:
    local_part, at, domain = rule.forward_to.rpartition("@")
    if not at or not local_part or any(character.isspace() or not character.isprintable() for character in rule.forward_to):
        raise ValueError(f"rule {rule.name!r}: {rule.forward_to!r} is no address to forward to")
    normalise_domain(domain)
