"""What the two gates need to know: relay domains, limits, and what is said of each listener. No rule, user or secret stands here, and of
routes the smart hosts of those that are asked for mailboxes."""

from __future__ import annotations

import enum

import msgspec

from postern_core.contract import Version, written
from postern_core.policy.access import ListenerAccess, ListenerProxy, ListenerReverseDns
from postern_core.policy.accounts import Rates, SenderRules, Throttling
from postern_core.policy.binds import ListenerBinds
from postern_core.policy.commands import ListenerCommands
from postern_core.policy.domains import RelayDomain
from postern_core.policy.extensions import ListenerExtensions
from postern_core.policy.filters import ListenerAddresses, ListenerRecipients, ListenerRelaying, ListenerSenders
from postern_core.policy.operating import ListenerState, SessionLogging
from postern_core.policy.recipients import CalloutRoute, ListenerGreylisting, ListenerVerification, RecipientList
from postern_core.policy.reputation import ListenerDnsLists, ListenerGreeting, MailAuthentication
from postern_core.policy.security import ListenerAuthentication, ListenerTls


class BareNewline(enum.StrEnum):
    """What to do with a CR or LF that stands alone in message data (RFC 5321 section 2.3.8)."""

    REJECT = "reject"  # 550 5.5.2 after the end of data
    NORMALISE = "normalise"  # make it CRLF; never does it end the data


class GateLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one gate. None switches a limit off."""

    max_message_bytes: int | None = 2048 * 1024  # OLD-PRODUCT 5.01
    max_session_bytes: int | None = 10240 * 1024  # sum of message bytes of a session, 5.02
    max_messages: int | None = 20  # transactions a connection, 5.03
    max_recipients: int | None = 100  # a transaction, 5.04; RFC 5321 section 4.5.3.1.8 asks for 100 at least
    max_recipient_domains: int | None = None  # different ones a session, then 452 4.5.3; RCPTDOMAINMAX of RFC 9422
    max_errors: int | None = 10  # rejected commands a session, then 421
    max_connections: int | None = 1000
    max_connections_per_client: int | None = 100  # an IPv4 address, or an IPv6 /64
    max_connections_per_network: int | None = None  # an IPv4 /24, or an IPv6 /64
    idle_timeout_s: float = 600.0  # between commands
    command_timeout_s: float = 300.0  # from the first octet of a command line to its CRLF (RFC 5321 section 4.5.3.2)
    data_block_timeout_s: float = 180.0  # for each 4096 octets of data (section 4.5.3.2.5); idle_timeout_s if that is less
    session_timeout_s: float | None = 3600.0  # whole session
    max_hops: int | None = 50  # Received: fields, then 554 5.4.6
    tls_deadline_s: float = 60.0  # authenticated gate: STARTTLS within this time …
    tls_deadline_commands: int = 10  # … and this many commands, else the connection is dropped
    bare_newline: BareNewline = BareNewline.REJECT


class ListenerIdentity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a gate calls itself."""

    hostname: str = ""  # in the banner, the HELO reply and the Received: field; "": the relay's
    note: str = ""  # the administrator's own, for people


class ListenerPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What else an administrator says of one gate: a part for each property sheet, none of which depends on another."""

    identity: ListenerIdentity = ListenerIdentity()
    access: ListenerAccess = ListenerAccess()
    reverse_dns: ListenerReverseDns = ListenerReverseDns()
    proxy: ListenerProxy = ListenerProxy()
    tls: ListenerTls = ListenerTls()
    authentication: ListenerAuthentication = ListenerAuthentication()
    throttling: Throttling = Throttling()
    senders: SenderRules = SenderRules()
    rates: Rates = Rates()
    commands: ListenerCommands = ListenerCommands()
    sender_filter: ListenerSenders = ListenerSenders()
    recipient_filter: ListenerRecipients = ListenerRecipients()
    relaying: ListenerRelaying = ListenerRelaying()
    addresses: ListenerAddresses = ListenerAddresses()
    extensions: ListenerExtensions = ListenerExtensions()
    state: ListenerState = ListenerState()
    logging: SessionLogging = SessionLogging()
    verification: ListenerVerification = ListenerVerification()
    greylisting: ListenerGreylisting = ListenerGreylisting()
    mail_authentication: MailAuthentication = MailAuthentication()
    dns_lists: ListenerDnsLists = ListenerDnsLists()
    greeting: ListenerGreeting = ListenerGreeting()
    binds: ListenerBinds = ListenerBinds()


class GatePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Section `gates`."""

    version: Version = msgspec.field(default_factory=written)
    revision: int
    hostname: str  # banner, HELO reply and Received: field
    relay_domains: tuple[RelayDomain, ...] = ()
    anon: GateLimits = GateLimits()
    auth: GateLimits = GateLimits()
    anon_listener: ListenerPolicy = ListenerPolicy()
    auth_listener: ListenerPolicy = ListenerPolicy()
    recipient_lists: tuple[RecipientList, ...] = ()
    callout_routes: tuple[CalloutRoute, ...] = ()
    default_route: str = ""  # of domains that name none
