"""Which recipients the authenticated gate takes: a mailbox of any domain (postern_smtp.recipients), or of relay domains alone where the
policy does not let users relay. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from postern_core.errors import Reply
from postern_core.policy import DomainTable, GatePolicy
from postern_core.policy.domains import normalise_domain, normalise_pattern
from postern_core.policy.networks import NetworkSet
from postern_smtp import replies
from postern_smtp.access import AccessList
from postern_smtp.checks import AccountCheck, Checks
from postern_smtp.filters import compile_filters
from postern_smtp.gate import DecideRecipient, GateRules, postmaster_domain
from postern_smtp.mail_authentication.examination import Examiner
from postern_smtp.paths import ForwardPath
from postern_smtp.recipients import AnyRecipient
from postern_smtp.resolver import Resolver
from postern_smtp.reverse_dns import name_checks


@dataclass(frozen=True, slots=True)
class RelayDomainsOnly:
    """Decides for one policy revision."""

    any_recipient: AnyRecipient
    domains: DomainTable[bool]

    def decide(self, path: ForwardPath) -> str | Reply:
        """The mailbox, or the refusal."""
        decided = self.any_recipient.decide(path)
        if isinstance(decided, Reply) or self.domains.find(decided.rpartition("@")[2]):
            return decided
        return replies.RELAY_DENIED


def compile_rules(policy: GatePolicy, *, resolver: Resolver, account: AccountCheck | None = None) -> GateRules:
    """The policy as this gate needs it; `resolver` is what its checks ask. ValueError for a hostname, pattern or default domain that is none."""
    listener = policy.auth_listener
    access = AccessList(listener.access)
    any_recipient = AnyRecipient(postmaster_domain(policy))
    decide: DecideRecipient = any_recipient.decide
    if not listener.relaying.users:
        domains = DomainTable((normalise_pattern(domain.pattern), domain.accept) for domain in policy.relay_domains)
        decide = RelayDomainsOnly(any_recipient, domains).decide
    return GateRules(
        revision=policy.revision,
        hostname=normalise_domain(listener.identity.hostname or policy.hostname),
        limits=policy.auth,
        listener=listener,
        access=access,
        trusted_proxies=NetworkSet(listener.proxy.trusted_networks),
        checks=Checks(connection=name_checks(listener, access, resolver), account=account),
        decide_recipient=decide,
        filters=compile_filters(policy, listener),
        examiner=_examiner(policy),
    )


def _examiner(policy: GatePolicy) -> Examiner | None:
    if not policy.auth_listener.mail_authentication.enabled:
        return None
    # not before it is wanted: its cryptography takes ten megabytes
    from postern_smtp.mail_authentication.evaluation import ForgeryRemoval, own_names

    return ForgeryRemoval(own_names(policy))
