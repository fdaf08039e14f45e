"""Which recipients the anonymous gate takes: mailboxes of relay domains, and no way around that.

Refused with 550 5.7.1, whatever their domain: source routes (`@a:b@c`), address literals, and local-parts, quoted or not, that a
mail server behind us might read as another route: with `%` (percent hack), `!` (bang path) or `@` in them. `<Postmaster>` alone, which
RFC 5321 section 4.5.1 asks everybody to take, goes to the first relay domain. Only a client in one of the networks that the policy
names may relay: what it sends is taken for any domain, as at the authenticated gate. Pure.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postern_core.errors import Reply
from postern_core.policy import DomainTable, GatePolicy
from postern_core.policy.domains import normalise_domain, normalise_pattern
from postern_core.policy.networks import NetworkSet
from postern_ingress_anon.greylist import Greylist
from postern_ingress_anon.greylisting import greylisting_checks
from postern_ingress_anon.verification import Asked, verification_checks
from postern_smtp import replies
from postern_smtp.access import AccessList
from postern_smtp.checks import Checks
from postern_smtp.dns_lists import dns_list_checks
from postern_smtp.filters import compile_filters
from postern_smtp.gate import GateRules, postmaster_domain
from postern_smtp.hello_checks import hello_checks
from postern_smtp.paths import ForwardPath
from postern_smtp.recipients import AnyRecipient
from postern_smtp.resolver import Resolver
from postern_smtp.reverse_dns import name_checks

if TYPE_CHECKING:
    from postern_smtp.mail_authentication.evaluation import MailExaminer

_ROUTING = frozenset("%!@")


@dataclass(frozen=True, slots=True)
class RelayRecipients:
    """Decides for one policy revision."""

    domains: DomainTable[bool]
    postmaster_domain: str

    def decide(self, path: ForwardPath) -> str | Reply:
        """The mailbox, or the refusal."""
        if path.has_source_route or path.is_literal:
            return replies.RELAY_DENIED
        if not path.domain:
            if not self.postmaster_domain:
                return replies.NO_SUCH_MAILBOX
            return f"{path.local_part}@{self.postmaster_domain}"
        if not _ROUTING.isdisjoint(_plain(path.unquoted_local_part)):
            return replies.RELAY_DENIED
        return path.address if self.domains.find(path.domain) else replies.RELAY_DENIED


def _plain(local_part: str) -> str:
    """As a mail server may read it that takes fullwidth `％`, `！` and `＠` for what they look like."""
    return local_part if local_part.isascii() else unicodedata.normalize("NFKC", local_part)


def compile_rules(policy: GatePolicy, *, resolver: Resolver, asked: Asked, greylist: Greylist) -> GateRules:
    """The policy as this gate needs it; `resolver`, `asked` and `greylist` are whom its checks ask. ValueError for a hostname, pattern or network that is none,
    and for what this process has not got."""
    domains = DomainTable((normalise_pattern(domain.pattern), domain.accept) for domain in policy.relay_domains)
    listener = policy.anon_listener
    recipients, filters = RelayRecipients(domains, postmaster_domain(policy)), compile_filters(policy, listener)
    access = AccessList(listener.access)
    hostname = normalise_domain(listener.identity.hostname or policy.hostname)
    examiner = _examiner(policy, hostname, resolver, filters.relay_clients)
    listed_at_once, listed_later = dns_list_checks(listener, access, resolver, filters.relay_clients)
    return GateRules(
        revision=policy.revision,
        hostname=hostname,
        limits=policy.anon,
        listener=listener,
        access=access,
        trusted_proxies=NetworkSet(listener.proxy.trusted_networks),
        checks=Checks(
            connection=(*name_checks(listener, access, resolver), *listed_at_once),
            sender=(*hello_checks(listener, filters, resolver), *((examiner.ask_early,) if examiner is not None else ())),
            recipient=(
                *listed_later,
                *greylisting_checks(listener, greylist),
                *verification_checks(policy, hostname, asked),
            ),
        ),
        examiner=examiner,
        decide_recipient=recipients.decide,
        filters=filters,
        decide_relayed=AnyRecipient(postmaster_domain(policy)).decide if filters.relay_clients is not None else None,
    )


def _examiner(policy: GatePolicy, hostname: str, resolver: Resolver, relay_clients: NetworkSet | None) -> MailExaminer | None:
    if not policy.anon_listener.mail_authentication.enabled:
        return None
    # not before it is wanted: its cryptography takes ten megabytes
    from postern_smtp.mail_authentication.evaluation import mail_examiner

    return mail_examiner(policy, hostname, resolver, relay_clients)
