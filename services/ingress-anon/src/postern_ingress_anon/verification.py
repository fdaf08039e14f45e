"""Whether the mailboxes of relay domains exist: by list, by callout or by directory, as each domain says. Everything else is not asked.

550 5.1.1 for a mailbox that does not; where nobody can say, 451 4.3.0 (4.4.3 when it is the directory that does not), or it is taken, as the
policy says. `postmaster` always exists (RFC 5321 section 4.5.1). Answers are compared caselessly, as every domain does that is known to us; a
list may say otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from postern_core.envelope import Recipient
from postern_core.errors import Reply
from postern_core.policy import (
    CalloutRoute,
    DomainTable,
    GatePolicy,
    ListenerVerification,
    RecipientList,
    Recipients,
    RelayDomain,
    WhenUnavailable,
)
from postern_core.policy.domains import normalise_pattern
from postern_ingress_anon.callouts import Callouts
from postern_ingress_anon.networks import client_block
from postern_ingress_anon.questions import Mailbox, Question, Questions
from postern_smtp import replies
from postern_smtp.checks import RecipientCheck

if TYPE_CHECKING:
    from postern_smtp.session import Session, Transaction

_DIRECTORY = "directory"


class Directory(Protocol):
    """A directory that knows mailboxes."""

    async def ask(self, address: str) -> Mailbox:
        """Whether there is this mailbox. Raises nothing."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(slots=True)
class Asked:
    """Whom this process asks, and what it remembers."""

    directory: Directory | None  # None: there is none configured
    questions: Questions
    callouts: Callouts

    @classmethod
    def nobody_yet(cls, directory: Directory | None = None) -> Asked:
        return cls(directory, Questions(), Callouts())

    async def run(self, stop: asyncio.Event) -> None:
        """At `stop`, let go of everybody."""
        await stop.wait()
        await self.questions.close()
        if self.directory is not None:
            self.directory.close()


class MailboxList:
    """The mailboxes of one domain."""

    def __init__(self, listed: RecipientList) -> None:
        self._is_exact = listed.case_sensitive
        self._addresses = frozenset(listed.addresses if self._is_exact else map(str.casefold, listed.addresses))

    def __contains__(self, address: str) -> bool:
        return (address if self._is_exact else address.casefold()) in self._addresses


@dataclass(frozen=True, slots=True)
class VerifyRecipient:
    """The check of one policy revision."""

    domains: DomainTable[RelayDomain]
    lists: Mapping[str, MailboxList]  # by pattern
    routes: Mapping[str, CalloutRoute]
    default_route: str
    hostname: str
    settings: ListenerVerification
    asked: Asked

    async def __call__(self, session: Session, _: Transaction, recipient: Recipient) -> Reply | None:
        local_part, name = recipient.address.rpartition("@")[::2]
        domain = self.domains.find(name.lower())
        if domain is None or domain.recipients is Recipients.ANY or local_part.lower() == "postmaster":
            return None
        if domain.recipients is Recipients.LIST:
            listed = self.lists.get(domain.pattern)
            is_known = listed is not None and plain(recipient.address) in listed
            return None if is_known else replies.NO_SUCH_MAILBOX
        question = self._question(domain, recipient.address, client_block(session.client_address))
        if question is None:
            return self._unavailable(domain)
        match await self.asked.questions.answer(question, self.settings):
            case Mailbox.EXISTS:
                return None
            case Mailbox.UNKNOWN:
                return replies.NO_SUCH_MAILBOX
            case Mailbox.UNDECIDED | Mailbox.UNAVAILABLE:
                return self._unavailable(domain)

    def _question(self, domain: RelayDomain, address: str, client: str) -> Question | None:
        if domain.recipients is Recipients.DIRECTORY:
            directory = self.asked.directory
            bare = plain(address)
            return Question(bare.casefold(), _DIRECTORY, client, lambda: directory.ask(bare)) if directory else None
        route = self.routes.get(domain.route or self.default_route)
        if route is None:
            return None
        ask = self.asked.callouts.ask
        # a route that leads elsewhere is somebody else: what the hosts before it said is not asked of these
        hosts = ",".join(f"{hop.host}:{hop.port}" for hop in route.next_hops)
        return Question(address.casefold(), f"{route.name} ({hosts})", client, lambda: ask(address, route, self.hostname))

    def _unavailable(self, domain: RelayDomain) -> Reply | None:
        if self.settings.when_unavailable is WhenUnavailable.ACCEPT:
            return None
        return replies.NO_DIRECTORY if domain.recipients is Recipients.DIRECTORY else replies.CANNOT_ASK


def verification_checks(policy: GatePolicy, hostname: str, asked: Asked) -> tuple[RecipientCheck, ...]:
    """What has to be asked at RCPT; nothing when every domain takes any mailbox. ValueError for a pattern that is none, and for a domain that wants
    the directory where there is none."""
    domains = [domain for domain in policy.relay_domains if domain.recipients is not Recipients.ANY]
    if not domains:
        return ()
    lost = [domain.pattern for domain in domains if domain.recipients is Recipients.DIRECTORY]
    if lost and asked.directory is None:
        raise ValueError(f"domain {lost[0]} looks its recipients up in a directory, and POSTERN_LDAP_URI names none")
    check = VerifyRecipient(
        domains=_table(policy.relay_domains),
        lists={each.domain: MailboxList(each) for each in policy.recipient_lists},
        routes={route.name: route for route in policy.callout_routes},
        default_route=policy.default_route,
        hostname=hostname,
        settings=policy.anon_listener.verification,
        asked=asked,
    )
    return (check,)


def _table(domains: Iterable[RelayDomain]) -> DomainTable[RelayDomain]:
    return DomainTable((normalise_pattern(domain.pattern), domain) for domain in domains)


def plain(address: str) -> str:
    """Without the quotes that a local-part may have in SMTP (RFC 5321 section 4.1.2) and has in no directory."""
    local_part, _, domain = address.rpartition("@")
    if not local_part.startswith('"'):
        return address
    inside, bare = iter(local_part[1:-1]), []
    for character in inside:
        bare.append(next(inside, "") if character == "\\" else character)
    return f"{''.join(bare)}@{domain}"
