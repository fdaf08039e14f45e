"""Lists in DNS of those who send what nobody wants, and of those who do not (RFC 5782), weighed together.

All zones are asked at once, and each once; what has not answered in three seconds counts nothing, so that a list that is dead refuses nobody. Only answers
in 127.0.0.0/8 count (RFC 5782 section 2.1): others come from resolvers or registrars that answer for names that are not there. Nor do those in
127.255.255.0/24, by which lists say that they do not answer this resolver. Not asked: for clients that an entry of connection control lets in, and
those that may relay. A postmaster is reached by everybody (RFC 5321 section 4.5.1), where the lists are asked for at RCPT.
"""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from postern_core.envelope import Recipient
from postern_core.errors import Reply
from postern_core.policy import DnsList, ListedAt, ListenerDnsLists, ListenerPolicy
from postern_core.policy.networks import IpAddress, NetworkSet, parse_address
from postern_smtp import replies
from postern_smtp.access import AccessList
from postern_smtp.checks import ConnectionCheck, RecipientCheck
from postern_smtp.resolver import Outcome, Resolver, reverse_name

if TYPE_CHECKING:
    from postern_smtp.session import Session, Transaction

log: structlog.stdlib.BoundLogger = structlog.get_logger()

DNS_LISTS_S: Final = 3.0
_CODES: Final = ipaddress.ip_network("127.0.0.0/8")
_ERRORS: Final = ipaddress.ip_network("127.255.255.0/24")


@dataclass(frozen=True, slots=True)
class Listing:
    """What the lists say of a client."""

    score: float = 0.0
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    list: DnsList
    answers: NetworkSet


class DnsListCheck:
    """Of one policy revision."""

    def __init__(
        self, settings: ListenerDnsLists, resolver: Resolver, access: AccessList, relay_clients: NetworkSet | None
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._access = access
        self._relay_clients = relay_clients or NetworkSet(())
        self._entries = tuple(_Entry(each, NetworkSet(each.answers)) for each in settings.lists)
        self._zones = tuple(dict.fromkeys(each.zone for each in settings.lists))

    async def connection(self, session: Session) -> Reply | None:
        """A check of the connection."""
        return replies.LISTED if await self._is_refused(session) else None

    async def recipient(self, session: Session, transaction: Transaction, recipient: Recipient) -> Reply | None:  # noqa: ARG002
        """A check of a recipient."""
        if recipient.address.rpartition("@")[0].casefold() == "postmaster":
            return None
        return replies.LISTED_CLIENT if await self._is_refused(session) else None

    async def _is_refused(self, session: Session) -> bool:
        if session.listing is None:
            session.listing = await self._look_up(session)
        found = session.listing
        if found.score < self._settings.threshold:
            return False
        session.denial = {"lists": ", ".join(found.zones), "score": found.score}
        return True

    async def _look_up(self, session: Session) -> Listing:
        address = parse_address(session.client_address)
        is_welcome = session.client_address in self._relay_clients or self._access.lets_in(
            session.client_address, session.host_names
        )
        if address is None or is_welcome:
            return Listing()
        answers = await self._ask(address)
        hits = [entry.list for entry in self._entries if _counts(entry, answers.get(entry.list.zone, ()))]
        listing = Listing(sum(hit.weight for hit in hits), tuple(dict.fromkeys(hit.zone for hit in hits)))
        if hits:
            log.info("client.listed", client=session.client_address, lists=listing.zones, score=listing.score)
        return listing

    async def _ask(self, address: IpAddress) -> dict[str, tuple[IpAddress, ...]]:
        """What each zone answered; those that did not are not there."""
        answers: dict[str, tuple[IpAddress, ...]] = {}

        async def ask(zone: str) -> None:
            answer = await self._resolver.ipv4(reverse_name(str(address), zone))
            if answer.outcome is not Outcome.FAILED:
                answers[zone] = answer.values

        try:
            async with asyncio.timeout(DNS_LISTS_S), asyncio.TaskGroup() as tasks:
                for zone in self._zones:
                    tasks.create_task(ask(zone), name=f"dns-list-{zone}")
        except TimeoutError:
            log.warning("dns_list.timed_out", zones=[zone for zone in self._zones if zone not in answers])
        return answers


def _counts(entry: _Entry, answers: tuple[IpAddress, ...]) -> bool:
    codes = [code for code in answers if code in _CODES and code not in _ERRORS]
    return any(str(code) in entry.answers for code in codes) if entry.list.answers else bool(codes)


def dns_list_checks(
    listener: ListenerPolicy, access: AccessList, resolver: Resolver, relay_clients: NetworkSet | None
) -> tuple[tuple[ConnectionCheck, ...], tuple[RecipientCheck, ...]]:
    """Those of the connection, and those of each recipient; none when there are no lists."""
    check = DnsListCheck(listener.dns_lists, resolver, access, relay_clients)
    if not listener.dns_lists.lists:
        return (), ()
    return ((check.connection,), ()) if listener.dns_lists.refuse_at is ListedAt.CONNECTION else ((), (check.recipient,))
