"""What the two gates have in common, and where they differ: a profile that is fixed at start, and rules that follow the policy.

Import this to build a gate; the sessions ask nothing else of it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from postern_core.envelope import Gate
from postern_core.errors import Reply
from postern_core.policy import GateLimits, GatePolicy, ListenerAccess, ListenerPolicy
from postern_core.policy.networks import NetworkSet
from postern_smtp.access import AccessList
from postern_smtp.checks import Checks
from postern_smtp.filters import Filters
from postern_smtp.paths import ForwardPath

# the mailbox to send to, or the reply that refuses it
DecideRecipient = Callable[[ForwardPath], str | Reply]


@dataclass(frozen=True, slots=True)
class Login:
    """Who has proved to be whom."""

    user: str  # the name as the administrator wrote it
    credential: str = ""  # by which of his credentials, so that revoking it ends this; "": only when he is disabled


class Authenticator(Protocol):
    """Checks a name and a password."""

    mechanisms: tuple[str, ...]
    max_attempts: int  # a session

    async def verify(self, name: str, password: str, client_address: str) -> Login | Reply:
        """Who it is, or the reply that refuses: 535 for anything wrong, 454 when it cannot be checked."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GateProfile:
    """What does not change while the service runs."""

    gate: Gate
    fallback_hostname: str  # while there is no policy
    tls: ssl.SSLContext | None = None  # None: STARTTLS is not offered
    tls_required: bool = False
    authenticator: Authenticator | None = None
    memory_bytes: int = 256 * 1024 * 1024  # message data of all sessions together, then 452 4.3.1

    @property
    def auth_required(self) -> bool:
        return self.authenticator is not None


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
    trusted_proxies: NetworkSet = field(default_factory=lambda: NetworkSet(()))
    filters: Filters = field(default_factory=Filters)
    decide_relayed: DecideRecipient | None = None  # in place of decide_recipient, for clients that may relay

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
