"""Who may connect to a gate, at the HTTP edge: the structs of `postern_core.policy.access`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Line, examples
from postern_core.policy import (
    AccessAction,
    AccessEntry,
    ListenerAccess,
    ListenerProxy,
    ListenerReverseDns,
    ReverseDns,
)
from postern_core.policy.domains import normalise_pattern
from postern_core.policy.networks import normalise_network, parse_address

_MAX_ENTRIES = 10_000
_MAX_NETWORKS = 1000


class AccessEntryBody(Body):
    """One entry of connection control."""

    action: AccessAction
    who: Line = Field(
        description="An address, a network (192.0.2.0/24, 2001:db8::/32), or a host's name: mail.example.com, or *.example.com for all below it. "
        "A name counts only when the address leads to it and it leads back."
    )

    def to_object(self) -> AccessEntry:
        return AccessEntry(action=self.action, who=_normalise(self.who.strip()))


class AccessBody(Body):
    """Connection control: the first entry that fits decides."""

    model_config = examples(
        {
            "entries": [
                {"action": "deny", "who": "192.0.2.0/24"},
                {"action": "allow", "who": "*.partner.example"},
                {"action": "allow", "who": "2001:db8::25"},
            ],
            "otherwise": "deny",
        },
        {},
    )

    entries: Annotated[list[AccessEntryBody], Field(max_length=_MAX_ENTRIES)] = Field(
        default_factory=list, description="In the order in which they are looked at."
    )
    otherwise: AccessAction = Field(default=AccessAction.ALLOW, description="When no entry fits.")

    def to_object(self) -> ListenerAccess:
        return ListenerAccess(entries=tuple(entry.to_object() for entry in self.entries), otherwise=self.otherwise)

    @classmethod
    def of(cls, access: ListenerAccess) -> AccessBody:
        entries = [AccessEntryBody(action=entry.action, who=entry.who) for entry in access.entries]
        return cls(entries=entries, otherwise=access.otherwise)


class ReverseDnsBody(Body):
    """The reverse-DNS switch."""

    model_config = examples({"mode": "stamp"}, {})

    mode: ReverseDns = Field(
        default=ReverseDns.OFF,
        description="off: nobody's name is looked up. stamp: the Received: field shows it. refuse: and who has none that is verified gets 554 5.7.25.",
    )

    def to_object(self) -> ListenerReverseDns:
        return ListenerReverseDns(mode=self.mode)

    @classmethod
    def of(cls, reverse_dns: ListenerReverseDns) -> ReverseDnsBody:
        return cls(mode=reverse_dns.mode)


class ProxyBody(Body):
    """Load balancers in front of a gate, which say by the PROXY protocol whose connection it is."""

    model_config = examples({"trusted_networks": ["192.0.2.10", "2001:db8:1::/64"]}, {})

    trusted_networks: Annotated[list[Line], Field(max_length=_MAX_NETWORKS)] = Field(
        default_factory=list,
        description="Addresses and networks from which each connection must begin with a PROXY header (version 1 or 2); from all others it is refused.",
    )

    def to_object(self) -> ListenerProxy:
        return ListenerProxy(trusted_networks=tuple(_network(text) for text in self.trusted_networks))

    @classmethod
    def of(cls, proxy: ListenerProxy) -> ProxyBody:
        return cls(trusted_networks=list(proxy.trusted_networks))


def _normalise(who: str) -> str:
    if "/" in who or parse_address(who) is not None or ":" in who:
        return _network(who)
    if not who.rpartition(".")[2].isdigit():  # else it would be an address with an octet too few or too many
        try:
            return normalise_pattern(who)
        except ValueError as error:
            raise InvalidError(
                "invalid_client", f"{who!r} is neither an address, nor a network, nor a host's name: {error}"
            ) from error
    raise InvalidError("invalid_client", f"{who!r} is no address")


def _network(text: str) -> str:
    try:
        return normalise_network(text)
    except ValueError as error:
        raise InvalidError("invalid_network", str(error)) from error
