"""The parts of a listener at the HTTP edge: the fields of their structs in `postern_core.policy.gates`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from pydantic import ConfigDict, Field

from postern_api.fields import Body, Line, Seconds, Whole, examples
from postern_api.policy.addresses import checked_domain
from postern_core.policy import BareNewline, GateLimits, ListenerIdentity

Count = Annotated[Whole, Field(ge=1, le=1_000_000_000)]
Bytes = Annotated[Whole, Field(ge=1, le=2**40)]
_DEFAULTS = GateLimits()


class LimitsBody(Body):
    """Limits of one gate; null switches a limit off, an absent field takes its default."""

    model_config = ConfigDict(json_schema_extra={"examples": [msgspec.to_builtins(_DEFAULTS)]})

    max_message_bytes: Bytes | None = Field(default=_DEFAULTS.max_message_bytes, description="552 5.3.4 above it.")
    max_session_bytes: Bytes | None = Field(default=_DEFAULTS.max_session_bytes, description="All messages of a connection.")
    max_messages: Count | None = Field(default=_DEFAULTS.max_messages, description="Transactions a connection, then 421 4.7.0.")
    max_recipients: Count | None = Field(
        default=_DEFAULTS.max_recipients,
        description="A transaction, then 452 4.5.3. RFC 5321 section 4.5.3.1.8 asks for 100 at least.",
    )
    max_recipient_domains: Count | None = Field(
        default=_DEFAULTS.max_recipient_domains,
        description="Different ones a session, then 452 4.5.3; told as RCPTDOMAINMAX (RFC 9422).",
    )
    max_errors: Count | None = Field(default=_DEFAULTS.max_errors, description="Rejected commands a session, then 421.")
    max_connections: Count | None = Field(default=_DEFAULTS.max_connections, description="At once, each replica.")
    max_connections_per_client: Count | None = Field(
        default=_DEFAULTS.max_connections_per_client, description="From one address, an IPv6 /64 counting as one."
    )
    max_connections_per_network: Count | None = Field(
        default=_DEFAULTS.max_connections_per_network, description="From one IPv4 /24 or IPv6 /64."
    )
    idle_timeout_s: Seconds = Field(default=_DEFAULTS.idle_timeout_s, description="Between commands.")
    command_timeout_s: Seconds = Field(
        default=_DEFAULTS.command_timeout_s, description="From the first octet of a command line to its end."
    )
    data_block_timeout_s: Seconds = Field(
        default=_DEFAULTS.data_block_timeout_s, description="For each 4096 octets of data; the idle time if that is less."
    )
    session_timeout_s: Seconds | None = Field(default=_DEFAULTS.session_timeout_s, description="The whole session.")
    max_hops: Count | None = Field(default=_DEFAULTS.max_hops, description="Received: fields, then 554 5.4.6.")
    tls_deadline_s: Seconds = Field(
        default=_DEFAULTS.tls_deadline_s, description="Authenticated gate: STARTTLS within this time …"
    )
    tls_deadline_commands: Count = Field(default=_DEFAULTS.tls_deadline_commands, description="… and this many commands.")
    bare_newline: BareNewline = Field(default=_DEFAULTS.bare_newline, description="A CR or LF that stands alone in data.")

    def to_object(self) -> GateLimits:
        return GateLimits(**self.model_dump())

    @classmethod
    def of(cls, limits: GateLimits) -> LimitsBody:
        return cls(**msgspec.structs.asdict(limits))


class IdentityBody(Body):
    """How one gate calls itself."""

    model_config = examples({"hostname": "mx1.example.com", "note": "behind the north firewall"}, {})

    hostname: Line = Field(
        default="", description="In the banner, the HELO reply and the Received: field; empty: the hostname of /settings."
    )
    note: Line = Field(default="", description="Your own, for people.")

    def to_object(self) -> ListenerIdentity:
        return ListenerIdentity(hostname=checked_domain(self.hostname) if self.hostname else "", note=self.note)

    @classmethod
    def of(cls, identity: ListenerIdentity) -> IdentityBody:
        return cls(hostname=identity.hostname, note=identity.note)
