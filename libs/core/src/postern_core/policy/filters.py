"""Addresses that a gate refuses or completes, and clients that may relay: four small parts of a listener's policy."""

from __future__ import annotations

import enum

import msgspec


class DeniedAs(enum.StrEnum):
    """What is said of a recipient on the deny list."""

    DENIED = "denied"  # 550 5.7.1
    NO_MAILBOX = "no-mailbox"  # 550 5.1.1, as if it did not exist


class ListenerSenders(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Senders that are refused at MAIL (OLD-PRODUCT 2.20, 2.21), as postern_core.policy.address_patterns has them."""

    rejected: tuple[str, ...] = ()


class ListenerRecipients(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Recipients that are refused at RCPT (OLD-PRODUCT 2.23), as postern_core.policy.address_patterns has them."""

    denied: tuple[str, ...] = ()
    denied_as: DeniedAs = DeniedAs.DENIED


class ListenerRelaying(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose mail is taken for any domain, not for relay domains alone."""

    networks: tuple[str, ...] = ()  # at the anonymous gate (OLD-PRODUCT 4.08): CIDR, without host bits
    users: bool = True  # at the authenticated gate (OLD-PRODUCT 4.09)


class ListenerAddresses(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the authenticated gate completes an address without a domain (OLD-PRODUCT 6.18); the anonymous gate refuses it."""

    default_domain: str = ""  # "": it is refused
