"""Who may connect to a gate: connection control, reverse DNS, and the proxies that say for whom they speak."""

from __future__ import annotations

import enum

import msgspec


class AccessAction(enum.StrEnum):
    """What an entry decides."""

    ALLOW = "allow"
    DENY = "deny"  # 554 5.7.1 in place of the greeting (RFC 5321 section 3.1)


class AccessEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list. `who` is an address, a network (CIDR), or the name of a host: `example.com`, or `*.example.com` for all below it.

    A name counts only when it is verified: the address has it, and it has the address.
    """

    action: AccessAction
    who: str


class ListenerAccess(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Connection control (OLD-PRODUCT 4.07): the first entry that fits decides."""

    entries: tuple[AccessEntry, ...] = ()
    otherwise: AccessAction = AccessAction.ALLOW  # when none fits


class ReverseDns(enum.StrEnum):
    """Whether the name of each client is looked up."""

    OFF = "off"
    STAMP = "stamp"  # and shown in Received: (OLD-PRODUCT 6.15)
    REFUSE = "refuse"  # and a client without a verified name is turned away


class ListenerReverseDns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The reverse-DNS switch."""

    mode: ReverseDns = ReverseDns.OFF


class ListenerProxy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Load balancers that open each connection with a PROXY header (version 1 or 2). From these networks it is required, from all others refused."""

    trusted_networks: tuple[str, ...] = ()  # addresses and networks (CIDR)
