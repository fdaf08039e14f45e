"""A snapshot as the three sections that services read. Pure.

A snapshot without a default route cannot be compiled: nothing is published, and the gates go on answering 451 4.3.5 (docs/architecture.md, rule 6)
or keep the policy that they have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from postern_api.errors import InvalidError
from postern_api.policy.list_checks import lists_in_use
from postern_api.policy.objects import RouteObject, RuleObject, RuleSetObject, Snapshot
from postern_core.policy import (
    AllOf,
    CalloutRoute,
    Condition,
    DeliveryPolicy,
    DirectionCondition,
    GatePolicy,
    NamedList,
    RecipientCondition,
    Recipients,
    Route,
    Rule,
    RuleMode,
    ScreeningPolicy,
    Section,
    SectionStruct,
    encode_section,
)

INCOMPLETE: Final = "there is no default route yet: nothing is published, and the gates answer 451 4.3.5 until one exists"
_MAX_SECTION_BYTES: Final = 7 * 1024 * 1024  # below the broker's max_payload of 8 MiB

_ALL_MAIL: Final = RuleSetObject(name="")


@dataclass(frozen=True, slots=True)
class Compiled:
    """One revision, ready to be published."""

    gates: GatePolicy
    screening: ScreeningPolicy
    delivery: DeliveryPolicy

    @property
    def sections(self) -> tuple[tuple[Section, SectionStruct], ...]:
        """In the order of publishing: a route is known to delivery before mail can take it, and a domain is accepted last."""
        return ((Section.DELIVERY, self.delivery), (Section.SCREENING, self.screening), (Section.GATES, self.gates))

    def encoded(self) -> tuple[tuple[Section, bytes], ...]:
        """The sections as bytes; InvalidError when one does not fit a broker message. CPU-bound."""
        encoded = tuple((section, encode_section(struct)) for section, struct in self.sections)
        for section, data in encoded:
            if len(data) > _MAX_SECTION_BYTES:
                raise InvalidError(
                    "policy_too_large", f"section {section} takes {len(data)} bytes, {_MAX_SECTION_BYTES} are possible"
                )
        return encoded


def compile_policy(snapshot: Snapshot, revision: int) -> Compiled | None:
    """The sections of a checked snapshot, None while it has no default route."""
    default = snapshot.default_route
    if not default:
        return None
    domains = snapshot.domains
    general = snapshot.settings
    return Compiled(
        gates=GatePolicy(
            revision=revision,
            hostname=general.hostname,
            relay_domains=domains,
            anon=snapshot.anon,
            auth=snapshot.auth,
            anon_listener=snapshot.anon_listener,
            auth_listener=snapshot.auth_listener,
            recipient_lists=snapshot.recipient_lists,
            callout_routes=_callout_routes(snapshot),
            default_route=default,
        ),
        screening=ScreeningPolicy(
            revision=revision,
            rules=_rules(snapshot),
            lists=tuple(NamedList(name=each.name, kind=each.kind, text=each.text) for each in lists_in_use(snapshot)),
            relay_domains=domains,
            default_route=default,
            max_deliveries=general.max_deliveries,
            screening_timeout_s=general.screening_timeout_s,
            excerpts=general.excerpts,
            archive=general.archive,
            unscannable=snapshot.unscannable,
            engines=snapshot.engines,
            hostname=general.hostname,
            postmaster=general.postmaster,
        ),
        delivery=DeliveryPolicy(
            revision=revision,
            hostname=general.hostname,
            routes=tuple(_route(route) for route in snapshot.routes),
            relay_domains=domains,
            default_route=default,
            schedule=snapshot.schedule,
            postmaster=general.postmaster,
            ndr_copy_to=general.ndr_copy_to,
        ),
    )


def _callout_routes(snapshot: Snapshot) -> tuple[CalloutRoute, ...]:
    """Those that some domain asks for its mailboxes, and no other: the gates need not know the rest."""
    asked = {domain.route or snapshot.default_route for domain in snapshot.domains if domain.recipients is Recipients.CALLOUT}
    return tuple(
        CalloutRoute(name=route.name, next_hops=route.smart_hosts, tls=route.tls, use_helo=route.use_helo)
        for route in snapshot.routes
        if route.name in asked
    )


def _rules(snapshot: Snapshot) -> tuple[Rule, ...]:
    """Those that are not off, each with what its set asks for in front of its own condition."""
    sets = {each.name: each for each in snapshot.rule_sets}
    found = []
    for rule in snapshot.rules:
        within = sets.get(rule.rule_set, _ALL_MAIL)
        if rule.enabled and within.enabled:
            found.append(_rule(rule, within))
    return tuple(found)


def _rule(rule: RuleObject, within: RuleSetObject) -> Rule:
    asked: list[Condition] = []
    if within.gates:
        asked.append(DirectionCondition(gates=within.gates))
    if within.recipients:
        asked.append(RecipientCondition(patterns=within.recipients))
    if within.schedule is not None:
        asked.append(within.schedule)
    return Rule(
        id=rule.id,
        name=rule.name,
        condition=AllOf(of=(*asked, rule.condition)) if asked else rule.condition,
        action=rule.action,
        forward_to=rule.forward_to,
        unless=rule.unless,
        mode=RuleMode.MONITOR if rule.monitor or within.monitor else RuleMode.ON,
        changes=rule.changes,
    )


def _route(route: RouteObject) -> Route:
    return Route(
        name=route.name,
        next_hops=route.smart_hosts,
        tls=route.tls,
        auth=bool(route.user),
        use_helo=route.use_helo,
        max_connections=route.max_connections,
        max_messages_per_connection=route.max_messages_per_connection,
        max_recipients=route.max_recipients,
        timeout_s=route.timeout_s,
    )
