"""Where a gate listens. A part of `ListenerPolicy`; without any, it listens where its environment says."""

from __future__ import annotations

from typing import Final

import msgspec

ANYWHERE: Final = "*"  # every address of the machine, IPv4 and IPv6


class Bind(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One address and port."""

    address: str  # an IPv4 or IPv6 address, or ANYWHERE
    port: int
    tls: bool = False  # TLS from the first octet (RFC 8314 section 3.3); authenticated gate


class ListenerBinds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of them; none: what the environment says."""

    binds: tuple[Bind, ...] = ()
