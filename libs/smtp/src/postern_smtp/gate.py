"""What the two gates have in common, and where they differ: a profile that is fixed at start, and rules that follow the policy.

Import this to build a gate; the sessions ask nothing else of it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from postern_core.envelope import Gate
from postern_core.errors import Reply
from postern_core.policy import GateLimits, GatePolicy, ListenerAccess, ListenerPolicy, Mechanism, TlsUse
from postern_core.policy.networks import NetworkSet
from postern_core.scram import Verifier
from postern_smtp.access import AccessList
from postern_smtp.checks import Checks
from postern_smtp.filters import Filters
from postern_smtp.mail_authentication.examination import Examiner
from postern_smtp.paths import ForwardPath

# the mailbox to send to, or the reply that refuses it
DecideRecipient = Callable[[ForwardPath], str | Reply]


@dataclass(frozen=True, slots=True)
class Login:
    """Who has proved to be whom."""

    user: str  # the name as the administrator wrote it
    credential: str = ""  # by which of his credentials, so that revoking it ends this; "": only when he is disabled


class Authenticator(Protocol):
    """Finds out who somebody is. Replies refuse: 535 for anything wrong, 454 when it cannot be checked now."""

    max_attempts: int  # a session

    async def verify(self, name: str, password: str, client_address: str) -> Login | Reply:
        """Who it is, or the refusal."""
        ...

    async def verifier(self, name: str, client_address: str) -> Verifier | Reply:
        """What to check this user's proof against: a decoy where there is no such user, or he has none."""
        ...

    async def proven(self, name: str, is_right: bool, client_address: str) -> Login | Reply:
        """Who it is, or the refusal, when a proof was checked: also one against a decoy."""
        ...

    async def certified(self, names: Sequence[str], user: str, client_address: str) -> Login | Reply:
        """The user who owns a verified certificate with these names in it, or the refusal. `user` is whom the client says
        he is, "" when it says nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GateProfile:
    """What does not change while the service runs; and, by `under`, what a policy makes of it."""

    gate: Gate
    fallback_hostname: str  # while there is no policy
    tls: ssl.SSLContext | None = None  # None: STARTTLS is not offered
    tls_required: bool = False
    authenticator: Authenticator | None = None
    mechanisms: tuple[str, ...] = (Mechanism.PLAIN, Mechanism.LOGIN)  # of AUTH, where there is an authenticator
    memory_bytes: int = 256 * 1024 * 1024  # message data of all sessions together, then 452 4.3.1

    @property
    def auth_required(self) -> bool:
        return self.authenticator is not None

    def under(self, policy: ListenerPolicy) -> GateProfile:
        """This profile with TLS and AUTH as `policy` has them. ValueError when that cannot be."""
        use, mechanisms = policy.tls.use, policy.authentication.mechanisms
        if self.auth_required and use is TlsUse.OFF:
            raise ValueError("TLS cannot be off where AUTH is needed: it goes inside TLS only")
        if self.auth_required and not mechanisms:
            raise ValueError("no mechanism is left to authenticate by")
        if self.tls is None and use is TlsUse.REQUIRED:
            raise ValueError("TLS is required, and this gate has no certificate")
        return replace(
            self,
            tls=None if use is TlsUse.OFF else self.tls,
            tls_required=self.tls_required if use is TlsUse.AUTO else use is TlsUse.REQUIRED,
            mechanisms=mechanisms,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRules:
    """One policy revision as a gate needs it. A transaction keeps the rules that it began with."""

    revision: int
    hostname: str
    limits: GateLimits
    decide_recipient: DecideRecipient
    listener: ListenerPolicy = field(default_factory=ListenerPolicy)
    checks: Checks = field(default_factory=Checks)
    access: AccessList = field(default_factory=lambda: AccessList(ListenerAccess()))
    examiner: Examiner | None = None  # None: messages are stored as they came
    trusted_proxies: NetworkSet = field(default_factory=lambda: NetworkSet(()))
    filters: Filters = field(default_factory=Filters)
    decide_relayed: DecideRecipient | None = None  # in place of decide_recipient, for clients that may relay

    def welcomes(self, client_address: str, names: Iterable[str]) -> bool:
        """Whether the client is known here: connection control lets it in by an entry, or it may relay."""
        return client_address in (self.filters.relay_clients or ()) or self.access.lets_in(client_address, names)

    def recipient_rule(self, client_address: str) -> DecideRecipient:
        """What decides of the recipients that this client names."""
        if self.decide_relayed is not None and client_address in (self.filters.relay_clients or ()):
            return self.decide_relayed
        return self.decide_recipient


def postmaster_domain(policy: GatePolicy) -> str:
    """Where mail for `<Postmaster>` without a domain goes (RFC 5321 section 4.5.1): the first relay domain that mail is accepted for
    and that is no wildcard, "" when there is none. Never a domain that is not the administrator's own."""
    own = (domain.pattern for domain in policy.relay_domains if domain.accept and not domain.pattern.startswith("*."))
    return next(own, "")
