"""Refused senders and recipients, relaying clients and the default domain, at the HTTP edge."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Annotated, Final

from pydantic import Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Line, examples
from postern_api.policy.addresses import checked_domain
from postern_core.policy.address_patterns import normalise_address_pattern
from postern_core.policy.filters import DeniedAs, ListenerAddresses, ListenerRecipients, ListenerRelaying, ListenerSenders
from postern_core.policy.networks import normalise_network

_MOST_PATTERNS: Final = 20_000
_MOST_NETWORKS: Final = 1000
_LEAST_PREFIX: Final = 8  # a wider network is everybody
Patterns = Annotated[list[Line], Field(max_length=_MOST_PATTERNS)]
_PATTERNS: Final = (
    "Caseless: `example.com`, `*.example.com` (every domain below it, not itself), `ann@example.com`, `ann@*.example.com`, `ann@*`; "
    "one `*` in the local-part stands for anything."
)


class SenderFilterBody(Body):
    """Senders that are refused at MAIL with 550 5.7.1. The null reverse-path never is."""

    model_config = examples({"rejected": ["*.bulk.example", "bulk.example", "spammer@example.com", "offers-*@example.org"]}, {})

    rejected: Patterns = Field(default=[], description=_PATTERNS)

    def to_object(self) -> ListenerSenders:
        return ListenerSenders(rejected=_unique(_pattern, self.rejected))

    @classmethod
    def of(cls, senders: ListenerSenders) -> SenderFilterBody:
        return cls(rejected=list(senders.rejected))


class RecipientFilterBody(Body):
    """Recipients that are refused at RCPT."""

    model_config = examples({"denied": ["everybody@relay.example"], "denied_as": "no-mailbox"}, {})

    denied: Patterns = Field(default=[], description=_PATTERNS)
    denied_as: DeniedAs = Field(default=DeniedAs.DENIED, description="`denied`: 550 5.7.1; `no-mailbox`: 550 5.1.1.")

    def to_object(self) -> ListenerRecipients:
        return ListenerRecipients(denied=_unique(_pattern, self.denied), denied_as=self.denied_as)

    @classmethod
    def of(cls, recipients: ListenerRecipients) -> RecipientFilterBody:
        return cls(denied=list(recipients.denied), denied_as=recipients.denied_as)


class RelayingBody(Body):
    """Whose mail is taken for any domain, not for relay domains alone."""

    model_config = examples({"networks": ["192.0.2.0/28", "2001:db8:1::/64"]}, {"users": False}, {})

    networks: Annotated[list[Line], Field(max_length=_MOST_NETWORKS)] = Field(
        default=[],
        description="Anonymous gate: clients that need no credentials for it; "
        f"addresses, or networks in CIDR form with a prefix of {_LEAST_PREFIX} bits at least.",
    )
    users: Flag = Field(default=True, description="Authenticated gate: whether its users may.")

    def to_object(self) -> ListenerRelaying:
        return ListenerRelaying(networks=_unique(_relay_network, self.networks), users=self.users)

    @classmethod
    def of(cls, relaying: ListenerRelaying) -> RelayingBody:
        return cls(networks=list(relaying.networks), users=relaying.users)


class AddressesBody(Body):
    """How an address without a domain is completed; authenticated gate only."""

    model_config = examples({"default_domain": "example.com"}, {})

    default_domain: Line = Field(
        default="", description="Put behind an address that has none, at MAIL and RCPT; empty: it is refused."
    )

    def to_object(self) -> ListenerAddresses:
        return ListenerAddresses(default_domain=checked_domain(self.default_domain) if self.default_domain else "")

    @classmethod
    def of(cls, addresses: ListenerAddresses) -> AddressesBody:
        return cls(default_domain=addresses.default_domain)


def _unique(checked: Callable[[str], str], texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(checked, texts)))


def _pattern(text: str) -> str:
    try:
        return normalise_address_pattern(text)
    except ValueError as error:
        raise InvalidError("invalid_pattern", str(error)) from error


def _relay_network(text: str) -> str:
    try:
        network = normalise_network(text)
    except ValueError as error:
        raise InvalidError("invalid_network", str(error)) from error
    if ipaddress.ip_network(network).prefixlen < _LEAST_PREFIX:
        raise InvalidError("open_relay", f"{network} would make an open relay: a prefix has {_LEAST_PREFIX} bits at least")
    return network
