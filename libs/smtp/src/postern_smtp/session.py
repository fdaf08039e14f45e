"""The state of one session, and the one table that says which command is legal in which state (RFC 5321 section 4.1.4). Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from postern_core.envelope import Client, HostCheck, Recipient
from postern_core.errors import Reply
from postern_core.policy import ListenerExtensions, Mechanism
from postern_smtp import replies
from postern_smtp.chunks import ChunkedData
from postern_smtp.commands import Mail, Verb
from postern_smtp.gate import GateProfile, GateRules

if TYPE_CHECKING:
    from postern_smtp.dns_lists import Listing


class State(enum.Enum):
    """Where the dialogue is."""

    __hash__ = object.__hash__  # Enum's own is a Python function

    START = enum.auto()  # no HELO or EHLO yet, or forgotten after STARTTLS
    READY = enum.auto()  # between transactions
    MAIL = enum.auto()  # a reverse-path, no recipient
    RCPT = enum.auto()  # at least one recipient
    CHUNKS = enum.auto()  # part of the message has come by BDAT, or was refused


_ANY: Final = frozenset(State)
_GREETED: Final = _ANY - {State.START}

LEGAL: Final[Mapping[Verb, frozenset[State]]] = {
    Verb.HELO: _ANY,
    Verb.EHLO: _ANY,
    Verb.NOOP: _ANY,
    Verb.RSET: _ANY,
    Verb.QUIT: _ANY,
    Verb.HELP: _ANY,
    Verb.VRFY: _ANY,
    Verb.STARTTLS: frozenset({State.START, State.READY}),  # RFC 3207 section 4; not inside a transaction
    Verb.AUTH: frozenset({State.READY}),  # RFC 4954 section 4
    Verb.MAIL: frozenset({State.READY}),
    Verb.RCPT: frozenset({State.MAIL, State.RCPT}),
    Verb.DATA: frozenset({State.RCPT}),  # RFC 3030 section 2: not in one transaction with BDAT
    Verb.BDAT: frozenset({State.RCPT, State.CHUNKS}),
}
# RFC 3207 section 4; HELO and RSET do no harm
BEFORE_TLS: Final = frozenset({Verb.HELO, Verb.EHLO, Verb.NOOP, Verb.RSET, Verb.QUIT, Verb.STARTTLS})
BEFORE_AUTH: Final = BEFORE_TLS | {Verb.AUTH, Verb.HELP}


@dataclass(slots=True)
class Transaction:
    """From MAIL to the end of data."""

    mail: Mail
    rules: GateRules
    recipients: list[Recipient] = field(default_factory=list)
    path_octets: int = 0
    chunks: ChunkedData | None = None  # from the first BDAT on


@dataclass(slots=True)
class Session:
    """One connection. Counters are for its whole life; TLS makes it forget all else that the client said (RFC 3207 section 4.2)."""

    client_address: str
    server_address: str = ""  # ours, with the port
    id: str = ""  # a SessionId, from the moment of connecting
    tls: str = ""  # protocol and cipher
    certificate_names: tuple[str, ...] = ()  # in the client's verified certificate
    host: str = ""  # what the client called itself
    extended: bool = False
    user: str = ""
    credential: str = ""  # by which he logged in (gate.Login)
    transaction: Transaction | None = None
    commands: int = 0
    idle_commands: int = 0  # in a row, that bring no mail
    errors: int = 0
    transactions: int = 0
    accepted: int = 0
    recipients: int = 0  # of what was accepted
    received_bytes: int = 0  # of message data
    octets_in: int = 0  # of everything, without what TLS adds
    octets_out: int = 0
    recipient_domains: set[str] = field(default_factory=set)  # of recipients that were taken
    auth_attempts: int = 0
    proxy_address: str = ""  # the load balancer that announced the client
    host_check: HostCheck | None = None  # what DNS says of the client, where the policy asks
    host_names: tuple[str, ...] = ()  # the verified ones

    listing: Listing | None = None  # what DNS lists say of the client, once they were asked
    denial: dict[str, str | float] = field(default_factory=dict)  # what whoever refused the client has to tell of it

    @property
    def state(self) -> State:
        if not self.host:
            return State.START
        if self.transaction is None:
            return State.READY
        if self.transaction.chunks is not None:
            return State.CHUNKS
        return State.RCPT if self.transaction.recipients else State.MAIL

    @property
    def client(self) -> Client:
        """What the envelope says of the client."""
        own = self.host.lower()
        return Client(
            address=self.client_address,
            helo=self.host,
            tls=self.tls,
            user=self.user,
            host=own if own in self.host_names else next(iter(self.host_names), ""),
            host_check=self.host_check,
        )

    def refusal(self, verb: Verb, profile: GateProfile, offered: ListenerExtensions) -> Reply | None:
        """Why `verb` is not legal now; None when it is."""
        return (
            self._extension_refusal(verb, profile, offered) or self._security_refusal(verb, profile) or self._order_refusal(verb)
        )

    def _extension_refusal(self, verb: Verb, profile: GateProfile, offered: ListenerExtensions) -> Reply | None:
        if verb is Verb.STARTTLS:
            if profile.tls is None:
                return replies.NOT_IMPLEMENTED
            return replies.ALREADY_SECURE if self.tls else None
        if verb is Verb.AUTH:
            if profile.authenticator is None:
                return replies.NOT_IMPLEMENTED
            return replies.ALREADY_AUTHENTICATED if self.user else None
        if verb is Verb.BDAT and not offered.chunking and (self.tls or not profile.tls_required):
            return replies.NOT_IMPLEMENTED
        return None

    def _security_refusal(self, verb: Verb, profile: GateProfile) -> Reply | None:
        if verb is Verb.AUTH and not self.tls:  # whatever the policy says of TLS
            return replies.AUTH_NEEDS_TLS
        if profile.tls_required and not self.tls and verb not in BEFORE_TLS:
            return replies.TLS_FIRST
        if profile.auth_required and not self.user and verb not in BEFORE_AUTH:
            return replies.AUTH_FIRST
        return None

    def _order_refusal(self, verb: Verb) -> Reply | None:
        if self.state in LEGAL[verb]:
            return None
        return replies.NO_RECIPIENTS if verb in (Verb.DATA, Verb.BDAT) and self.state is State.MAIL else replies.BAD_SEQUENCE

    def secured(self, tls: str, certificate_names: tuple[str, ...] = ()) -> None:
        """TLS has begun: what was said in the clear is forgotten."""
        self.tls, self.host, self.extended, self.transaction = tls, "", False, None
        self.user = self.credential = ""
        self.certificate_names = certificate_names

    def mechanisms(self, profile: GateProfile) -> tuple[str, ...]:
        """Those of AUTH that this session may use; none before TLS."""
        if profile.authenticator is None or not self.tls:
            return ()
        # RFC 4422 appendix A: without a certificate there is nothing outside to stand by
        return tuple(each for each in profile.mechanisms if each != Mechanism.EXTERNAL or self.certificate_names)
