"""Patterns for addresses, sets of networks, and the table of the SMTP filter."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.policy.address_patterns import AddressPatterns, normalise_address_pattern
from postern_core.policy.commands import DEFAULT_COMMANDS, CommandRule, command_table, differing
from postern_core.policy.networks import NetworkSet, normalise_network


@pytest.mark.parametrize(
    ("pattern", "address"),
    [
        ("bad.example", "a@bad.example"),
        ("bad.example", "A@BAD.Example"),
        ("BAD.example.", "a@bad.example"),
        ("*.bad.example", "a@x.bad.example"),
        ("*.bad.example", "a@x.y.bad.example"),
        ("bücher.example", "a@xn--bcher-kva.example"),
        ("Ann@bad.example", "ann@bad.example"),
        ("ann@bad.example", "ANN@bad.example"),
        ("ann@bad.example", '"ann"@bad.example'),
        ("ann@bad.example", '"\\a\\nn"@bad.example'),
        ("ann@*.bad.example", "ann@x.bad.example"),
        ("ann@*", "ann@anything.example"),
        ("*@bad.example", "whoever@bad.example"),
        ("news-*@bad.example", "news-17@bad.example"),
        ("*-bounce@*.bad.example", "x-bounce@list.bad.example"),
        ("a*b@bad.example", "ab@bad.example"),
        ("a@b@bad.example", '"a@b"@bad.example'),
    ],
)
def test_a_pattern_covers(pattern: str, address: str) -> None:
    assert AddressPatterns(["else.example", pattern]).covers(address)


@pytest.mark.parametrize(
    ("pattern", "address"),
    [
        ("bad.example", "a@x.bad.example"),
        ("bad.example", "a@notbad.example"),
        ("bad.example", "bad.example@good.example"),
        ("*.bad.example", "a@bad.example"),
        ("ann@bad.example", "joann@bad.example"),
        ("ann@bad.example", "ann@x.bad.example"),
        ("ann@*.bad.example", "ann@bad.example"),
        ("ann@*", "anne@anything.example"),
        ("news-*@bad.example", "news@bad.example"),
        ("aba*aba@bad.example", "aba@bad.example"),
        ("bad.example", ""),
        ("*.example", "a@[192.0.2.1]"),
    ],
)
def test_a_pattern_does_not_cover(pattern: str, address: str) -> None:
    assert not AddressPatterns([pattern]).covers(address)


@pytest.mark.parametrize(
    "text", ["", "@", "@bad.example", "*", "*@*", "a**b@bad.example", "a@b c", 'a"@bad.example', "a@x.*.example", "<a@b>"]
)
def test_what_is_no_pattern_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        normalise_address_pattern(text)


def test_no_pattern_covers_nothing() -> None:
    assert not AddressPatterns([])
    assert AddressPatterns(["ann@bad.example"])
    assert not AddressPatterns([]).covers("a@b.example")


# an IPv4 address inside an IPv6 one is compared below
addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None)
networks = addresses.flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda prefix: str(ipaddress.ip_network(f"{address}/{prefix}", strict=False))
    )
)


@given(st.lists(networks, max_size=8), addresses)
def test_a_set_holds_what_one_of_its_networks_holds(
    texts: list[str], address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    expected = any(address in ipaddress.ip_network(text) for text in texts)
    assert (str(address) in NetworkSet(texts)) is expected


def test_an_ipv4_address_counts_in_its_ipv6_form_and_a_name_never() -> None:
    networks = NetworkSet(["192.0.2.0/28", "2001:db8::/32", "fe80::/10"])
    assert "192.0.2.15" in networks
    assert "::ffff:192.0.2.15" in networks
    assert "192.0.2.16" not in networks
    assert "fe80::1%eth0" in networks
    assert "mx.example" not in networks
    assert "" not in networks
    with pytest.raises(ValueError, match="host bits"):
        normalise_network("192.0.2.1/28")


def test_the_table_has_the_defaults_and_what_is_in_place_of_them_or_beside() -> None:
    noop, other = CommandRule(verb="NOOP", max_octets=6), CommandRule(verb="X-EXPS", enabled=False)
    table = command_table([other, noop])
    assert [rule.verb for rule in table] == [*(rule.verb for rule in DEFAULT_COMMANDS), "X-EXPS"]
    assert noop in table
    assert differing([other, noop, CommandRule(verb="DATA")]) == (noop, other)
    assert command_table(()) == DEFAULT_COMMANDS
