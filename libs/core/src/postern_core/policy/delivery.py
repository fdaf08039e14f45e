"""What delivery needs to know: routes, the retry schedule, and where notices go. Passwords are in KV SECRETS, not here."""

from __future__ import annotations

import enum

import msgspec

from postern_core.contract import Version, written
from postern_core.policy.domains import RelayDomain


class RouteTls(enum.StrEnum):
    """STARTTLS towards a smart host."""

    OFF = "off"
    OPPORTUNISTIC = "opportunistic"  # when offered; the certificate is not checked (RFC 7435)
    REQUIRED = "required"  # else the mail waits; the certificate is not checked
    VERIFY = "verify"  # required, and the certificate must be valid for the host's name


class NextHop(msgspec.Struct, frozen=True, kw_only=True):
    """One smart host: a name (looked up as A/AAAA) or an IP address (written `[192.0.2.1]` by administrators)."""

    host: str  # without brackets
    port: int = 25


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A way out: one or more smart hosts, tried in order."""

    name: str  # [a-z0-9-]{1,32}: a subject token
    next_hops: tuple[NextHop, ...]
    tls: RouteTls = RouteTls.OPPORTUNISTIC
    auth: bool = False  # credentials in KV SECRETS, key `route.<name>`; used inside TLS only
    use_helo: bool = False  # HELO instead of EHLO (OLD-PRODUCT 8.06)
    max_connections: int = 20
    max_messages_per_connection: int | None = 20  # OLD-PRODUCT 5.03
    max_recipients: int = 100  # a transaction; the rest goes in further ones (OLD-PRODUCT 5.05)
    timeout_s: float = 600.0  # for the reply to the end of data (RFC 5321 section 4.5.3.2.6)


class RetrySchedule(msgspec.Struct, frozen=True, kw_only=True):
    """When to try again, in seconds: the last interval repeats (OLD-PRODUCT 6.01–6.03)."""

    intervals_s: tuple[float, ...] = (15 * 60, 30 * 60, 60 * 60, 240 * 60)
    delay_notice_s: float | None = 12 * 3600  # after acceptance; None: never
    expiry_s: float = 48 * 3600  # after acceptance


class DeliveryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Section `delivery`."""

    version: Version = msgspec.field(default_factory=written)
    revision: int
    hostname: str  # EHLO name and Reporting-MTA
    routes: tuple[Route, ...]
    relay_domains: tuple[RelayDomain, ...] = ()  # domain → route, for NDRs
    default_route: str = "default"
    schedule: RetrySchedule = RetrySchedule()
    postmaster: str = ""  # From: of notices; "" means postmaster@<hostname>
    ndr_copy_to: str = ""  # a copy of each NDR, "" for none (OLD-PRODUCT 5.06)
