"""What a gate asks the world about a client and about the domains that a message names: is the mail from whom it says it is from?"""

from __future__ import annotations

import enum

import msgspec


class DmarcAction(enum.StrEnum):
    """How far a gate goes along with what the author's domain asks for when DMARC fails."""

    NONE = "none"  # the result is stamped, and no more
    HOLD = "hold"  # what is to be quarantined or refused is held
    REJECT = "reject"  # what is to be refused gets 550 5.7.1; what is to be quarantined is held


class MailAuthentication(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """SPF, DKIM, DMARC and ARC at the end of data, stamped as Authentication-Results (RFC 8601)."""

    enabled: bool = False
    dmarc: DmarcAction = DmarcAction.NONE
    defer_unknown: bool = False  # 451 4.7.1 when DNS does not say whether DMARC passes, where `dmarc` is not none
    trusted_arc_sealers: tuple[str, ...] = ()  # domains: what they saw pass before they changed it does not fail here


class DnsList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A list in DNS of addresses (RFC 5782). A zone may stand more than once, with other answers."""

    zone: str
    weight: float = 1.0  # below 0: a list of those who are welcome
    answers: tuple[str, ...] = ()  # addresses and networks in 127.0.0.0/8 that count; none: all


class ListedAt(enum.StrEnum):
    """When a listed client is told."""

    RECIPIENT = "recipient"  # 550 5.7.1 to each RCPT but that of a postmaster
    CONNECTION = "connection"  # 554 5.7.1 in place of the greeting


class ListenerDnsLists(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client is refused when the weights of the lists that have it come to the threshold."""

    lists: tuple[DnsList, ...] = ()
    threshold: float = 1.0
    refuse_at: ListedAt = ListedAt.RECIPIENT


class Switch(enum.StrEnum):
    """Of a check."""

    OFF = "off"
    REFUSE = "refuse"


class ListenerGreeting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a client has to behave before it may send."""

    pause_s: float = 0.0  # before the greeting; who talks meanwhile gets 554 5.5.1
    hello_syntax: Switch = Switch.OFF  # HELO and EHLO name a host with a dot in it, or an address literal
    hello_own: Switch = Switch.OFF  # they do not name us
    hello_resolves: Switch = Switch.OFF  # what they name is in DNS
