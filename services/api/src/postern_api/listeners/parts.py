"""The parts of a listener: which there are, and where each stands in a snapshot. A new property sheet is one more line in `PARTS`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
from pydantic import Field, JsonValue

from postern_api.fields import Body, examples
from postern_api.listeners.access import AccessBody, ProxyBody, ReverseDnsBody
from postern_api.listeners.accounts import RatesBody, SenderRulesBody, ThrottlingBody
from postern_api.listeners.binds import BindsBody
from postern_api.listeners.commands import CommandsBody
from postern_api.listeners.extensions import ExtensionsBody
from postern_api.listeners.filters import AddressesBody, RecipientFilterBody, RelayingBody, SenderFilterBody
from postern_api.listeners.mailboxes import GreylistingBody, VerificationBody
from postern_api.listeners.operating import LoggingBody, StateBody
from postern_api.listeners.reputation import DnsListsBody, GreetingBody, MailAuthenticationBody
from postern_api.listeners.schemas import IdentityBody, LimitsBody
from postern_api.listeners.security import AuthenticationBody, TlsBody
from postern_api.policy.objects import Snapshot
from postern_api.status.schemas import UnboundView


class GateName(enum.StrEnum):
    """The gates."""

    ANON = "anon"
    AUTH = "auth"


class PartBody(Protocol):
    """What the body of a part can do beside being one."""

    def to_object(self) -> msgspec.Struct:
        """As the policy has it. InvalidError for what cannot be."""
        ...

    @classmethod
    def of(cls, part: Any) -> Any:
        """As the API shows it."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One property sheet: `name` is the field of `ListenerPolicy`, and the last piece of its address."""

    name: str
    body: Any  # a Body that is a PartBody
    about: str

    def read(self, snapshot: Snapshot, gate: GateName) -> Body:
        """As it is in force."""
        shown: Body = self.body.of(getattr(getattr(snapshot, f"{gate}_listener"), self.name))
        return shown

    def write(self, snapshot: Snapshot, gate: GateName, part: msgspec.Struct) -> Snapshot:
        """`snapshot` with this part of that gate."""
        listener = msgspec.structs.replace(getattr(snapshot, f"{gate}_listener"), **{self.name: part})
        return msgspec.structs.replace(snapshot, **{f"{gate}_listener": listener})


class _Limits(Part):
    """Limits are older than the other parts, and stand beside the listener."""

    def read(self, snapshot: Snapshot, gate: GateName) -> Body:
        return LimitsBody.of(getattr(snapshot, gate))

    def write(self, snapshot: Snapshot, gate: GateName, part: msgspec.Struct) -> Snapshot:
        return msgspec.structs.replace(snapshot, **{gate.value: part})


PARTS: Final[tuple[Part, ...]] = (
    Part("identity", IdentityBody, "How the gate calls itself."),
    Part("binds", BindsBody, "Where the gate listens; none: where its environment says."),
    Part("access", AccessBody, "Connection control: who may connect, by address, network or verified name."),
    Part("reverse_dns", ReverseDnsBody, "Whether the name of each client is looked up, and what follows."),
    Part("proxy", ProxyBody, "The load balancers that are trusted to say whose connection it is."),
    Part("extensions", ExtensionsBody, "Which ESMTP extensions the gate offers."),
    Part("verification", VerificationBody, "How callouts and directory lookups of recipients are made (anonymous gate)."),
    Part("greylisting", GreylistingBody, "Whether strangers are asked to come again (anonymous gate)."),
    _Limits("limits", LimitsBody, "Sizes, numbers and times; null switches one off."),
    Part("tls", TlsBody, "Whether sessions need TLS, and which TLS it must be."),
    Part("authentication", AuthenticationBody, "How clients may authenticate."),
    Part("dns_lists", DnsListsBody, "Lists in DNS of addresses, weighed together (anonymous gate)."),
    Part("greeting", GreetingBody, "How a client has to behave, and what it has to call itself."),
    Part("mail_authentication", MailAuthenticationBody, "SPF, DKIM, DMARC and ARC, and what follows from them."),
    Part("throttling", ThrottlingBody, "Failed logins (authenticated gate)."),
    Part("senders", SenderRulesBody, "Whose reverse-paths are whose (authenticated gate)."),
    Part("rates", RatesBody, "How much users may send (authenticated gate)."),
    Part("commands", CommandsBody, "The SMTP filter: a switch and a length for each verb."),
    Part("sender_filter", SenderFilterBody, "Senders that are refused at MAIL."),
    Part("recipient_filter", RecipientFilterBody, "Recipients that are refused at RCPT."),
    Part("relaying", RelayingBody, "Who may send to any domain: networks at the anonymous gate, users at the other."),
    Part("addresses", AddressesBody, "How an address without a domain is completed; authenticated gate only."),
    Part("logging", LoggingBody, "What the session log has."),
    Part("state", StateBody, "Open, paused or drained."),
)


class ListenerBody(Body):
    """One gate with all its parts, each as its own address shows it."""

    model_config = examples(
        {
            "gate": "anon",
            "parts": {"identity": {"hostname": "mx1.example.com", "note": ""}},
            "listens": {"mx-1": ["0.0.0.0:25"]},
            "unbound": {"mx-1": [{"address": "[2001:db8::25]:25", "problem": "Cannot assign requested address"}]},
        }
    )

    gate: GateName
    parts: dict[str, JsonValue]
    listens: dict[str, list[str]] = Field(
        description="Where it listens, by replica, as each reports: host:port, and (TLS) behind it where TLS starts at once."
    )
    unbound: dict[str, list[UnboundView]] = Field(
        default={},
        description="Where it is to listen and cannot, by replica; those that listen wherever they are to are left out.",
    )
