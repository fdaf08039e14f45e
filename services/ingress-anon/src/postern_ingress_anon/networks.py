"""Which clients count as one, where somebody may have a whole network of them: an IPv4 /24, an IPv6 /64."""

from __future__ import annotations

import ipaddress

from postern_core.policy.networks import parse_address


def client_block(address: str) -> str:
    """The network of `address`; what is no address counts by itself."""
    parsed = parse_address(address)
    if parsed is None:
        return address
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 64), strict=False))
