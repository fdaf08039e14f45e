"""Recipient domain to route."""

from __future__ import annotations

import pytest

from postern_core.envelope import Recipient
from postern_core.policy import DeliveryPolicy, NextHop, RelayDomain, Route
from postern_delivery.routing import RoutingTable

HOP = (NextHop(host="mail.example"),)
POLICY = DeliveryPolicy(
    revision=1,
    hostname="relay.example.net",
    routes=(Route(name="default", next_hops=HOP), Route(name="other", next_hops=HOP)),
    relay_domains=(
        RelayDomain(pattern="relay.example"),
        RelayDomain(pattern="*.relay.example", route="other"),
        RelayDomain(pattern="x.relay.example", route="default"),
    ),
)


@pytest.mark.parametrize(
    ("domain", "route"),
    [
        ("relay.example", "default"),
        ("a.b.relay.example", "other"),
        ("x.relay.example", "default"),
        ("elsewhere.example", "default"),
    ],
)
def test_the_most_specific_pattern_decides(domain: str, route: str) -> None:
    assert RoutingTable.compile(POLICY).route_name(domain) == route


def test_a_job_keeps_its_route_while_the_policy_has_it() -> None:
    table = RoutingTable.compile(POLICY)
    recipients = (Recipient(n=0, address="a@relay.example"), Recipient(n=1, address="b@s.relay.example"))
    assert table.by_route("other", recipients) == {"other": recipients}
    assert table.by_route("gone", recipients) == {"default": recipients[:1], "other": recipients[1:]}


@pytest.mark.parametrize(
    "policy",
    [
        DeliveryPolicy(revision=1, hostname="", routes=()),
        DeliveryPolicy(revision=1, hostname="two words", routes=()),
        DeliveryPolicy(revision=1, hostname="relay.example\r\nQUIT", routes=()),
        DeliveryPolicy(revision=1, hostname="h", routes=(Route(name="a", next_hops=HOP), Route(name="a", next_hops=HOP))),
        DeliveryPolicy(revision=1, hostname="h", routes=(Route(name="a", next_hops=()),)),
    ],
)
def test_a_policy_that_cannot_be_used_is_refused(policy: DeliveryPolicy) -> None:
    with pytest.raises(ValueError):
        RoutingTable.compile(policy)
