"""Networks in one canonical form, and the table that finds the first that covers an address."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.policy.networks import (
    IpNetwork,
    NetworkSet,
    NetworkTable,
    normalise_network,
    parse_address,
    parse_network,
    plain_address,
)


def _near(version: int, number: int, prefix: int) -> IpNetwork:
    """Networks that overlap often: what they begin with differs in few ways."""
    bits = 32 if version == 4 else 128
    host_bits = bits - min(prefix, bits)
    first = number << (bits - 8) >> host_bits << host_bits
    family = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    return family((first, bits - host_bits))


NETWORKS = st.builds(_near, st.sampled_from([4, 6]), st.integers(8, 11), st.sampled_from([0, 4, 6, 7, 8, 9, 32, 128]))
ADDRESSES = st.ip_addresses() | st.integers(8 << 24, (12 << 24) - 1).map(IPv4Address)


@given(st.lists(NETWORKS, max_size=20), ADDRESSES)
def test_the_table_finds_what_looking_at_each_in_turn_finds(
    networks: list[IpNetwork], address: IPv4Address | IPv6Address
) -> None:
    expected = next((place for place, network in enumerate(networks) if address in network), None)
    assert NetworkTable(enumerate(networks)).find(address) == expected


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_the_one_that_it_is(address: IPv4Address) -> None:
    mapped = f"::ffff:{address}"
    assert plain_address(mapped) == str(address)
    assert parse_address(mapped) == address
    assert normalise_network(mapped) == f"{address}/32"
    assert mapped in NetworkSet([f"{address}/32"])
    assert mapped not in NetworkSet(["::/0"])
    assert NetworkTable([(0, parse_network("::ffff:0.0.0.0/96"))]).find(address) == 0


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (" 192.0.2.1 ", "192.0.2.1/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:DB8:0:0::/32", "2001:db8::/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_a_network_has_one_form(text: str, canonical: str) -> None:
    assert normalise_network(text) == canonical
    assert normalise_network(canonical) == canonical


@pytest.mark.parametrize(
    "text", ["", "host.example", "192.0.2.1/24", "192.0.2/24", "192.0.2.0/33", "2001:db8::1/32", "fe80::1%eth0/64"]
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no address or network"):
        parse_network(text)


def test_an_address_without_its_scope_is_an_address() -> None:
    assert parse_address("fe80::1%eth0") == IPv6Address("fe80::1")
    assert parse_address("") is parse_address("unknown") is None
    assert "" not in NetworkSet(["0.0.0.0/0", "::/0"])
    assert "fe80::1%eth0" in NetworkSet(["fe80::/10"])
    assert plain_address("fe80::1%eth0") == "fe80::1%eth0"
