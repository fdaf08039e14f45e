"""Which mailboxes relay domains have, and how the anonymous gate asks for those that it is not told."""

from __future__ import annotations

import enum

import msgspec

from postern_core.policy.delivery import NextHop, RouteTls


class RecipientList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All mailboxes of a domain (`recipients` is LIST), the postmaster's apart, which is always there."""

    domain: str  # the pattern of its relay domain
    addresses: tuple[str, ...] = ()  # local-part@domain, sorted; case-folded unless `case_sensitive`
    case_sensitive: bool = (
        False  # two local-parts that differ by case are two mailboxes (RFC 5321 section 2.4 lets the domain decide)
    )


class CalloutRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A route whose smart hosts are asked for mailboxes (`recipients` is CALLOUT). Nobody authenticates for that: there are no passwords here."""

    name: str
    next_hops: tuple[NextHop, ...]
    tls: RouteTls = RouteTls.OPPORTUNISTIC
    use_helo: bool = False


class WhenUnavailable(enum.StrEnum):
    """What becomes of a recipient when nobody can be asked."""

    DEFER = "defer"  # 451: the client comes again
    ACCEPT = "accept"  # taken unasked; what does not exist bounces later


class ListenerVerification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How callouts and directory lookups are made, and for how long their answers are good."""

    when_unavailable: WhenUnavailable = WhenUnavailable.DEFER
    timeout_s: float = 10.0  # a question, the wait for its turn included; all next hops of a route together
    known_s: float = 24 * 3600.0  # for how long a mailbox that exists is not asked for again
    unknown_s: float = 2 * 3600.0  # and one that does not
    max_remembered: int = 20_000  # answers; the one used least recently goes first
    max_at_once: int = 20  # questions under way, a replica
    max_at_once_per_route: int = 5  # of them, by callouts to one route
    max_at_once_per_client: int = 2  # of them, for clients of one network (IPv4 /24, IPv6 /64)


class ListenerGreylisting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Greylisting (RFC 6647): who was never seen with this sender and recipient is asked to come again."""

    enabled: bool = False
    delay_s: float = 300.0  # before that, coming again does not help
    retry_window_s: float = 48 * 3600.0  # after that, it is a first time again
    known_s: float = 35 * 86400.0  # since the last mail
    whitelist_after: int | None = (
        5  # senders and recipients with which a client network came again; None: a client is never taken unasked
    )
    exempt_networks: tuple[str, ...] = ()  # clients that are never asked to come again
