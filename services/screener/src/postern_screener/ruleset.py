"""Policy → compiled rules: what a worker keeps in memory for one revision. Compiled off the loop, swapped whole, never changed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from postern_core.bus.topology import checked_route_name
from postern_core.changes import CopyTo, Notify, StripAttachments, check_changes
from postern_core.policy import (
    ENGINE_OF,
    AttachmentCondition,
    Condition,
    DomainTable,
    HeaderCondition,
    KeywordCondition,
    Lists,
    MalformedCondition,
    RecipientCondition,
    Rule,
    ScreeningPolicy,
    SenderCondition,
)
from postern_core.policy.address_patterns import AddressPatterns
from postern_core.policy.conditions import MOST_NESTED, criteria, nesting
from postern_core.policy.domains import normalise_domain
from postern_core.policy.matching import CompiledRule, NumberedRules
from postern_core.verdict import Action, Engine
from postern_screener.checks.attachments import AttachmentCheck
from postern_screener.checks.contents import ContentCheck
from postern_screener.checks.engines import engine_look
from postern_screener.checks.facts import look_of
from postern_screener.checks.headers import HeaderCheck
from postern_screener.checks.keywords import KeywordCheck, Region
from postern_screener.checks.properties import property_of
from postern_screener.checks.senders import SenderCheck
from postern_screener.engines.yara import Yara


class Ruleset:
    """One compiled revision. Safe to use from several threads. `properties`, `facts`, `recipients` and `malformed` name criteria by their
    numbers."""

    def __init__(self, policy: ScreeningPolicy) -> None:
        """ValueError names what does not compile."""
        started = time.perf_counter()
        _check_limits(policy)
        self.policy = policy
        self.revision = policy.revision
        for rule in policy.rules:
            _check_rule(rule, policy.engines.enabled)
        self.numbered = NumberedRules(policy.rules)
        self.rules, numbers = self.numbered.rules, self.numbered.numbers
        lists = Lists(policy.lists)
        # first: compiling long lists of phrases takes the most memory for a while, and the other tables need not stand beside that
        self.keywords = KeywordCheck(((n, c) for c, n in numbers.items() if isinstance(c, KeywordCondition)), lists)
        self.senders = SenderCheck(((n, c) for c, n in numbers.items() if isinstance(c, SenderCondition)), lists)
        self.attachments = AttachmentCheck(((n, c) for c, n in numbers.items() if isinstance(c, AttachmentCondition)), lists)
        self.contents = ContentCheck(((n, c) for c, n in numbers.items() if isinstance(c, AttachmentCondition)), lists)
        self.headers = HeaderCheck(((n, c) for c, n in numbers.items() if isinstance(c, HeaderCondition)), lists)
        self.malformed = numbers.get(MalformedCondition())
        looks = {n: property_of(c, lists) for c, n in numbers.items()}
        self.properties = {n: look for n, look in looks.items() if look is not None}
        self.recipients = {n: AddressPatterns(c.patterns) for c, n in numbers.items() if isinstance(c, RecipientCondition)}
        self.engines = {n: look for c, n in numbers.items() if (look := engine_look(c)) is not None}
        self.yara = Yara(policy.engines.yara) if policy.engines.yara.enabled else None
        facts = {n: look_of(c) for c, n in numbers.items()}
        self.facts = {n: look for n, look in facts.items() if look is not None}
        # whether any rule asks for what a text holds, files that are packed into it among that
        self.looks_into_texts = (
            self.keywords.wants(Region.BODY | Region.ATTACHMENT)
            or self.attachments.has_any
            or bool(self.facts or self.contents.surface or self.contents.deep)
        )
        # whether some rule may have attachments opened, which can take seconds
        self.looks_inside = bool(self.contents.deep) or self.keywords.wants(Region.ATTACHMENT)
        self.stripping = frozenset(n for each in self.rules if _strips(each.rule) for n in each.condition.criteria())
        self._routes = DomainTable((domain.pattern, domain.route or policy.default_route) for domain in policy.relay_domains)
        # what it takes a process that can take over nothing from the revision before, and then some
        self.compiled_in_s = time.perf_counter() - started + self.keywords.compiled_in_s + self.headers.compiled_in_s

    def candidates(self, found: Iterable[int]) -> list[CompiledRule]:
        """The rules that may match a message in which these criteria were found, in order: of a thousand rules mostly none."""
        return self.numbered.candidates(found)

    def route_of(self, domain: str) -> str:
        """The route that mail for `domain` takes."""
        return self._routes.find(domain) or self.policy.default_route


def compile_policy(policy: ScreeningPolicy) -> Ruleset:
    """The ruleset of `policy`; ValueError when it does not compile, also for want of memory: the last good one then stays in force."""
    try:
        return Ruleset(policy)
    except MemoryError as error:
        raise ValueError("the rules take more memory than this process may use") from error


def _check_rule(rule: Rule, enabled: frozenset[Engine]) -> None:
    if rule.action is Action.FORWARD:
        _check_address(rule, rule.forward_to, "forward to")
    _check_changes(rule)
    for condition in (rule.condition, rule.unless):
        if condition is None:
            continue
        if nesting(condition) > MOST_NESTED:
            raise ValueError(f"rule {rule.name!r}: conditions nest deeper than {MOST_NESTED} levels")
        _check_engines(rule, condition, enabled)


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


def _check_changes(rule: Rule) -> None:
    try:
        check_changes(rule.changes, rule.action)
    except ValueError as error:
        raise ValueError(f"rule {rule.name!r}: {error}") from error
    for change in rule.changes:
        if isinstance(change, CopyTo):
            _check_address(rule, change.address, "copy to")
        elif isinstance(change, Notify) and change.address:
            _check_address(rule, change.address, "notify")


def _strips(rule: Rule) -> bool:
    """Whether what matters is where the rule matches, and not only that it does."""
    return any(isinstance(change, StripAttachments) and not change.every for change in rule.changes)


def _check_address(rule: Rule, address: str, purpose: str) -> None:
    local_part, at, domain = address.rpartition("@")
    if not at or not local_part or any(character.isspace() or not character.isprintable() for character in address):
        raise ValueError(f"rule {rule.name!r}: {address!r} is no address to {purpose}")
    normalise_domain(domain)
