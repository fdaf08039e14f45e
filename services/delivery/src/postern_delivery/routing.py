"""Which route a recipient takes: the most specific domain pattern decides, and the default route takes the rest.

The screener has routed a job already; delivery routes again only what it writes itself (notices), and jobs whose route has left the
policy since. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from postern_core.envelope import Recipient
from postern_core.policy import DeliveryPolicy, DomainTable, Route
from postern_core.policy.domains import normalise_domain


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """A delivery section of the policy, ready for look-ups."""

    policy: DeliveryPolicy
    routes: Mapping[str, Route]
    domains: DomainTable[str]  # pattern → route, "" for the default one

    @classmethod
    def compile(cls, policy: DeliveryPolicy) -> RoutingTable:
        """ValueError for a section that cannot be used: no proper hostname, two routes of one name, a route that leads nowhere."""
        normalise_domain(policy.hostname)  # it stands in every EHLO and in every notice
        routes = {route.name: route for route in policy.routes}
        if len(routes) != len(policy.routes):
            raise ValueError("two routes have the same name")
        for route in policy.routes:
            if not route.next_hops:
                raise ValueError(f"route {route.name} has no next hop")
        return cls(policy, routes, DomainTable((domain.pattern, domain.route) for domain in policy.relay_domains))

    def route_name(self, domain: str) -> str:
        """The route for mail to `domain` (lower case, A-labels); the default route for any domain that is not listed."""
        return self.domains.find(domain) or self.policy.default_route

    def by_route(self, job_route: str, recipients: Iterable[Recipient]) -> dict[str, tuple[Recipient, ...]]:
        """`recipients` by the name of the route that they take now: the job's own while the policy has it, else by domain."""
        if job_route in self.routes:
            return {job_route: tuple(recipients)}
        groups: dict[str, list[Recipient]] = {}
        for recipient in recipients:
            groups.setdefault(self.route_name(recipient.domain), []).append(recipient)
        return {name: tuple(group) for name, group in groups.items()}
