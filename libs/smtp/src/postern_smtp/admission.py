"""Which connections may come in: connection control by address, and how many there may be, in all, of one client and of one network. Pure."""

from __future__ import annotations

import ipaddress
from collections import Counter
from functools import lru_cache
from typing import Final

from postern_core.errors import Reply
from postern_core.policy import AccessAction, GateLimits
from postern_core.policy.networks import parse_address
from postern_smtp import replies
from postern_smtp.gate import GateRules
from postern_smtp.reception import client_network

_KNOWN_ADDRESSES: Final = 1024


@lru_cache(_KNOWN_ADDRESSES)
def network_of(address: str) -> str:
    """Who counts as one network: an IPv4 /24, or an IPv6 /64 (which is one client, too: reception.client_network)."""
    parsed = parse_address(address)
    if parsed is None or parsed.version == 6:
        return client_network(address)
    return str(ipaddress.IPv4Address(int(parsed) >> 8 << 8))


class Crowd:
    """Connections, counted by client and by network."""

    def __init__(self) -> None:
        self._total = 0
        self._clients: Counter[str] = Counter()
        self._networks: Counter[str] = Counter()

    def add(self, address: str) -> None:
        self._total += 1
        self._clients[client_network(address)] += 1
        self._networks[network_of(address)] += 1

    def remove(self, address: str) -> None:
        self._total -= 1
        for counts, key in ((self._clients, client_network(address)), (self._networks, network_of(address))):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]

    def total(self) -> int:
        return self._total

    def of_client(self, address: str) -> int:
        return self._clients[client_network(address)]

    def of_network(self, address: str) -> int:
        return self._networks[network_of(address)]


def denial(rules: GateRules | None, address: str) -> Reply | None:
    """Why connection control turns this address away, whoever else is there; names are asked for later (reverse_dns.py)."""
    is_denied = rules is not None and rules.access.by_address(address) is AccessAction.DENY
    return replies.ACCESS_DENIED if is_denied else None


def overcrowding(limits: GateLimits, address: str, *crowds: Crowd) -> Reply | None:
    """Why one client or one network has too many connections; the one that asks is counted already."""
    client, network = limits.max_connections_per_client, limits.max_connections_per_network
    if client is not None and sum(crowd.of_client(address) for crowd in crowds) > client:
        return replies.TOO_MANY_OF_YOURS
    if network is not None and sum(crowd.of_network(address) for crowd in crowds) > network:
        return replies.TOO_MANY_OF_NETWORK
    return None
