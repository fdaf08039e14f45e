"""Networks: addresses and CIDR, in one canonical form, and the table that finds the first entry that covers an address.

An IPv4 address that comes as IPv6 (`::ffff:192.0.2.1`, as a socket for both families shows it) is the IPv4 address that it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def parse_address(text: str) -> IpAddress | None:
    """The address, without a scope (`%eth0`); None for what is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def plain_address(text: str) -> str:
    """`text` with an IPv4-mapped IPv6 address as IPv4, and all else as it is."""
    return str(parse_address(text) or text) if text.startswith("::ffff:") else text


def parse_network(text: str) -> IpNetwork:
    """An address or a network. ValueError that says what is wrong, for a network with bits beyond its prefix, too."""
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise ValueError(f"{text!r} is no address or network: {error}") from error
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def normalise_network(text: str) -> str:
    """Canonical: with the prefix, also where it is one address. ValueError as `parse_network`."""
    return str(parse_network(text))


class NetworkTable:
    """Which is the first of many networks that covers an address, in time proportional to the number of different prefix lengths."""

    def __init__(self, networks: Iterable[tuple[int, IpNetwork]]) -> None:
        """Each with its place, the lowest of which wins."""
        self._first: dict[tuple[int, int], dict[int, int]] = {}  # (version, host bits) → network without them → its place
        for place, network in networks:
            host_bits = network.max_prefixlen - network.prefixlen
            table = self._first.setdefault((network.version, host_bits), {})
            number = int(network.network_address) >> host_bits
            table[number] = min(place, table.get(number, place))

    def find(self, address: IpAddress) -> int | None:
        """The place of the first that covers it."""
        number = int(address)
        places = [
            table[number >> host_bits]
            for (version, host_bits), table in self._first.items()
            if version == address.version and number >> host_bits in table
        ]
        return min(places, default=None)

    def __bool__(self) -> bool:
        return bool(self._first)


class NetworkSet:
    """Whether an address lies in one of many networks."""

    def __init__(self, networks: Iterable[str]) -> None:
        """ValueError for what is no network."""
        self._table = NetworkTable(enumerate(map(parse_network, networks)))

    def __bool__(self) -> bool:
        return bool(self._table)

    def __contains__(self, address: str) -> bool:
        """What is no address lies in no network."""
        parsed = parse_address(address)
        return parsed is not None and self._table.find(parsed) is not None
