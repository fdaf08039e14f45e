"""What a gate asks the world about clients and domains, at the HTTP edge: the structs of `postern_core.policy.reputation`."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec
from pydantic import Field, Strict

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Line, examples
from postern_core.policy import (
    DmarcAction,
    DnsList,
    ListedAt,
    ListenerDnsLists,
    ListenerGreeting,
    MailAuthentication,
    Switch,
)
from postern_core.policy.domains import normalise_domain
from postern_core.policy.networks import normalise_network

_MAX_SEALERS = 1000
_MAX_LISTS = 50
_MAX_ANSWERS = 50
_CODES = ipaddress.IPv4Network("127.0.0.0/8")

Weight = Annotated[float, Strict(), Field(ge=-1000, le=1000, allow_inf_nan=False)]


class DnsListBody(Body):
    """One list."""

    zone: Line = Field(description="Below which the client's address is looked up, such as zen.spamhaus.org.")
    weight: Weight = Field(
        default=1.0, description="What it adds when it has the client; below 0 for a list of those who are welcome."
    )
    answers: Annotated[list[Line], Field(max_length=_MAX_ANSWERS)] = Field(
        default_factory=list,
        description="Addresses and networks in 127.0.0.0/8: only these answers count. None: all. A zone may stand more than once, with other answers.",
    )

    def to_object(self) -> DnsList:
        return DnsList(zone=_domain(self.zone), weight=self.weight, answers=tuple(_code(text) for text in self.answers))


class DnsListsBody(Body):
    """Lists of addresses in DNS (RFC 5782); anonymous gate."""

    model_config = examples(
        {
            "lists": [
                {"zone": "zen.spamhaus.org", "weight": 2, "answers": ["127.0.0.2/31", "127.0.0.4"]},
                {"zone": "list.dnswl.org", "weight": -3},
            ],
            "threshold": 2,
            "refuse_at": "recipient",
        },
        {},
    )

    lists: Annotated[list[DnsListBody], Field(max_length=_MAX_LISTS)] = Field(default_factory=list)
    threshold: Annotated[float, Strict(), Field(gt=0, le=1000, allow_inf_nan=False)] = Field(
        default=1.0, description="The sum of weights at which a client is refused."
    )
    refuse_at: ListedAt = Field(
        default=ListedAt.RECIPIENT,
        description="recipient: 550 5.7.1 to each RCPT but those for a postmaster. connection: 554 5.7.1 in place of the greeting.",
    )

    def to_object(self) -> ListenerDnsLists:
        lists = tuple(each.to_object() for each in self.lists)
        return ListenerDnsLists(lists=lists, threshold=self.threshold, refuse_at=self.refuse_at)

    @classmethod
    def of(cls, part: ListenerDnsLists) -> DnsListsBody:
        lists = [DnsListBody(zone=each.zone, weight=each.weight, answers=list(each.answers)) for each in part.lists]
        return cls(lists=lists, threshold=part.threshold, refuse_at=part.refuse_at)


class GreetingBody(Body):
    """The beginning of a session. Each check turns some honest client away: look at your log first."""

    model_config = examples({"pause_s": 5, "hello_own": "refuse"}, {})

    pause_s: Annotated[float, Strict(), Field(ge=0, le=60, allow_inf_nan=False)] = Field(
        default=0.0, description="Before the greeting; a client that talks meanwhile gets 554 5.5.1. 0: none. Either gate."
    )
    hello_syntax: Switch = Field(
        default=Switch.OFF,
        description="550 5.7.1 to MAIL when HELO or EHLO named neither a host with a dot nor an address literal. Anonymous gate, as those below.",
    )
    hello_own: Switch = Field(default=Switch.OFF, description="The same when it named this relay, or its address.")
    hello_resolves: Switch = Field(default=Switch.OFF, description="The same when DNS knows no such host or mail domain.")

    def to_object(self) -> ListenerGreeting:
        return ListenerGreeting(**self.model_dump())

    @classmethod
    def of(cls, part: ListenerGreeting) -> GreetingBody:
        return cls(**msgspec.structs.asdict(part))


class MailAuthenticationBody(Body):
    """Whether mail is from whom it says, asked once at the end of data."""

    model_config = examples({"enabled": True, "dmarc": "hold", "trusted_arc_sealers": ["lists.example.org"]}, {})

    enabled: Flag = Field(
        default=False,
        description="Anonymous gate: SPF, DKIM, DMARC and ARC are evaluated and stamped as Authentication-Results. "
        "Either gate: fields of that name that claim to be ours are removed.",
    )
    dmarc: DmarcAction = Field(
        default=DmarcAction.NONE,
        description="When DMARC fails. none: it is stamped. hold: what the author's domain asks to quarantine or to reject is held. "
        "reject: what it asks to reject gets 550 5.7.1, and what it asks to quarantine is held.",
    )
    defer_unknown: Flag = Field(
        default=False,
        description="451 4.7.1 when DNS does not say whether DMARC passes (and dmarc is not none); false: such mail is taken.",
    )
    trusted_arc_sealers: Annotated[list[Line], Field(max_length=_MAX_SEALERS)] = Field(
        default_factory=list,
        description="Domains of forwarders and lists: what passed DMARC as they saw it, and bears their seal last, does not fail here.",
    )

    def to_object(self) -> MailAuthentication:
        return MailAuthentication(
            enabled=self.enabled,
            dmarc=self.dmarc,
            defer_unknown=self.defer_unknown,
            trusted_arc_sealers=tuple(dict.fromkeys(_domain(name) for name in self.trusted_arc_sealers)),
        )

    @classmethod
    def of(cls, part: MailAuthentication) -> MailAuthenticationBody:
        return cls(
            enabled=part.enabled,
            dmarc=part.dmarc,
            defer_unknown=part.defer_unknown,
            trusted_arc_sealers=list(part.trusted_arc_sealers),
        )


def _code(text: str) -> str:
    try:
        network = ipaddress.ip_network(normalise_network(text))
    except ValueError as error:
        raise InvalidError("invalid_network", str(error)) from error
    if not isinstance(network, ipaddress.IPv4Network) or not network.subnet_of(_CODES):
        raise InvalidError("invalid_network", f"{text!r} is not in {_CODES}: such answers never count")
    return str(network)


def _domain(name: str) -> str:
    try:
        return normalise_domain(name)
    except ValueError as error:
        raise InvalidError("invalid_domain", str(error)) from error
