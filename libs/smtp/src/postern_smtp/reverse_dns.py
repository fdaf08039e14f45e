"""The name of a client: what its address says (PTR) and the name confirms (its addresses hold the client's). Nobody else's word is taken for it.

RFC 1912 section 2.1, RFC 8601 section 3 (`iprev`), RFC 7372 (5.7.25). Three outcomes (OLD-PRODUCT 6.15): verified; unverified, there is no name or none that
leads back; failed, DNS did not say. Time-boxed: what is not known by then has failed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postern_core.envelope import HostCheck
from postern_core.errors import Reply
from postern_core.policy import AccessAction, ListenerPolicy, ReverseDns
from postern_core.policy.networks import IpAddress, parse_address
from postern_smtp import replies
from postern_smtp.access import AccessList
from postern_smtp.checks import ConnectionCheck
from postern_smtp.resolver import Outcome, Resolver

if TYPE_CHECKING:
    from postern_smtp.session import Session

REVERSE_DNS_S: Final = 8.0  # both directions
_MAX_NAMES: Final = 10  # of an address, as in RFC 7208 section 4.6.4


@dataclass(frozen=True, slots=True)
class ClientName:
    """`names` are there when it is VERIFIED, and only then."""

    outcome: HostCheck
    names: tuple[str, ...] = ()


_FAILED: Final = ClientName(HostCheck.FAILED)
_UNVERIFIED: Final = ClientName(HostCheck.UNVERIFIED)


async def verify_client_name(resolver: Resolver, client_address: str, *, within_s: float = REVERSE_DNS_S) -> ClientName:
    """See the module."""
    address = parse_address(client_address)
    if address is None:
        return _UNVERIFIED
    try:
        async with asyncio.timeout(within_s):
            return await _verify(resolver, address)
    except TimeoutError:
        return _FAILED


async def _verify(resolver: Resolver, address: IpAddress) -> ClientName:
    pointers = await resolver.pointers(str(address))
    if pointers.outcome is not Outcome.FOUND:
        return _FAILED if pointers.outcome is Outcome.FAILED else _UNVERIFIED
    names = sorted(set(pointers.values))[:_MAX_NAMES]
    forward = resolver.ipv4 if address.version == 4 else resolver.ipv6
    answers = await asyncio.gather(*(forward(name) for name in names))
    verified = tuple(name for name, answer in zip(names, answers, strict=True) if address in answer.values)
    if verified:
        return ClientName(HostCheck.VERIFIED, verified)
    return _FAILED if any(answer.outcome is Outcome.FAILED for answer in answers) else _UNVERIFIED


@dataclass(frozen=True, slots=True)
class NameCheck:
    """Asks for the name of a client where the switch or the list needs it, keeps it in the session, and decides."""

    access: AccessList
    mode: ReverseDns
    resolver: Resolver

    async def __call__(self, session: Session) -> Reply | None:
        needs_names = self.access.by_address(session.client_address) is None
        if not needs_names and self.mode is ReverseDns.OFF:
            return None
        found = await verify_client_name(self.resolver, session.client_address)
        session.host_check, session.host_names = found.outcome, found.names
        refusal = self._by_list(session, found) if needs_names else None
        return refusal or self._by_switch(found)

    def _by_list(self, session: Session, found: ClientName) -> Reply | None:
        if found.outcome is HostCheck.FAILED:
            return self.access.without_names(session.client_address)
        is_denied = self.access.by_names(session.client_address, found.names) is AccessAction.DENY
        return replies.ACCESS_DENIED if is_denied else None

    def _by_switch(self, found: ClientName) -> Reply | None:
        if self.mode is not ReverseDns.REFUSE or found.outcome is HostCheck.VERIFIED:
            return None
        return replies.NAME_UNKNOWN if found.outcome is HostCheck.FAILED else replies.NAME_UNVERIFIED


def name_checks(listener: ListenerPolicy, access: AccessList, resolver: Resolver) -> tuple[ConnectionCheck, ...]:
    """What has to be asked before the greeting; nothing when neither the switch nor an entry asks for names."""
    mode = listener.reverse_dns.mode
    return (NameCheck(access, mode, resolver),) if access.has_names or mode is not ReverseDns.OFF else ()
