"""Policy → compiled rules: what a worker keeps in memory for one revision. Compiled off the loop, swapped whole, never changed."""

from __future__ import annotations

import math
import time

from postern_core.bus.topology import checked_route_name
from postern_core.policy import (
    AttachmentCondition,
    DomainTable,
    KeywordCondition,
    Rule,
    ScreeningPolicy,
    SenderCondition,
)
from postern_core.policy.domains import normalise_domain
from postern_core.verdict import Action
from postern_screener.checks.attachments import AttachmentCheck
from postern_screener.checks.keywords import KeywordCheck
from postern_screener.checks.senders import SenderCheck


class Ruleset:
    """One compiled revision. Safe to use from several threads."""

    def __init__(self, policy: ScreeningPolicy) -> None:
        """ValueError names what does not compile."""
        started = time.perf_counter()
        _check_limits(policy)
        self.policy = policy
        self.revision = policy.revision
        self.rules: tuple[Rule, ...] = policy.rules
        for rule in policy.rules:
            if rule.action is Action.FORWARD:
                _check_forward(rule)
        numbered = list(enumerate(policy.rules))
        self.senders = SenderCheck((n, r.condition.patterns) for n, r in numbered if isinstance(r.condition, SenderCondition))
        self.attachments = AttachmentCheck((n, r.condition) for n, r in numbered if isinstance(r.condition, AttachmentCondition))
        self.keywords = KeywordCheck((n, r.condition) for n, r in numbered if isinstance(r.condition, KeywordCondition))
        self._routes = DomainTable((domain.pattern, domain.route or policy.default_route) for domain in policy.relay_domains)
        self.compiled_in_s = time.perf_counter() - started

    def route_of(self, domain: str) -> str:
        """The route that mail for `domain` takes."""
        return self._routes.find(domain) or self.policy.default_route


def compile_policy(policy: ScreeningPolicy) -> Ruleset:
    """The ruleset of `policy`; ValueError when it does not compile, also for want of memory: the last good one then stays in force."""
    try:
        return Ruleset(policy)
    except MemoryError as error:
        raise ValueError("the rules take more memory than this process may use") from error


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
