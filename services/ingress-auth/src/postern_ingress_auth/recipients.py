"""Which recipients the authenticated gate takes: a mailbox of any domain.

Not an address literal (`a@[192.0.2.1]`): mail leaves by routes, which go by domain. A source route is dropped (RFC 5321 appendix C).
`<Postmaster>` alone goes to the first relay domain (section 4.5.1). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from postern_core.errors import Reply
from postern_core.policy import GatePolicy
from postern_core.policy.domains import normalise_domain
from postern_core.policy.networks import NetworkSet
from postern_smtp import replies
from postern_smtp.access import AccessList
from postern_smtp.checks import AccountCheck, Checks
from postern_smtp.gate import GateRules, postmaster_domain
from postern_smtp.paths import ForwardPath
from postern_smtp.resolver import Resolver
from postern_smtp.reverse_dns import name_checks


@dataclass(frozen=True, slots=True)
class AnyRecipient:
    """Decides for one policy revision."""

    postmaster_domain: str

    def decide(self, path: ForwardPath) -> str | Reply:
        """The mailbox, or the refusal."""
        if path.is_literal:
            return replies.LITERAL_DENIED
        if path.domain:
            return path.address
        if not self.postmaster_domain:
            return replies.NO_POSTMASTER_DOMAIN
        return f"{path.local_part}@{self.postmaster_domain}"


def compile_rules(policy: GatePolicy, *, resolver: Resolver, account: AccountCheck | None = None) -> GateRules:
    """The policy as this gate needs it; `resolver` is what its checks ask. ValueError for a hostname that is no domain name."""
    listener = policy.auth_listener
    access = AccessList(listener.access)
    return GateRules(
        revision=policy.revision,
        hostname=normalise_domain(listener.identity.hostname or policy.hostname),
        limits=policy.auth,
        listener=listener,
        access=access,
        trusted_proxies=NetworkSet(listener.proxy.trusted_networks),
        checks=Checks(connection=name_checks(listener, access, resolver), account=account),
        decide_recipient=AnyRecipient(postmaster_domain(policy)).decide,
    )
