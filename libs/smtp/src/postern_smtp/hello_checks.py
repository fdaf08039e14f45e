"""What a client calls itself, held against what RFC 5321 asks (sections 2.3.5 and 4.1.3), each by its own switch.

An honest client now and then fails these (section 4.1.4 forbids to refuse for want of a DNS entry alone), hence all of them are off by default. They are
answered at MAIL, so that a client that is refused can still ask for TLS or QUIT, and may say a better name. Clients that may relay, or have
authenticated, are not asked. A name that DNS does not tell of for the time being is taken.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postern_core.errors import Reply
from postern_core.policy import ListenerGreeting, ListenerPolicy, Switch
from postern_core.policy.domains import normalise_domain
from postern_core.policy.networks import NetworkSet, parse_address
from postern_smtp import replies
from postern_smtp.checks import SenderCheck
from postern_smtp.commands import Mail
from postern_smtp.filters import Filters
from postern_smtp.resolver import Outcome, Resolver

if TYPE_CHECKING:
    from postern_smtp.session import Session

HELLO_LOOKUP_S: Final = 6.0
_LITERAL: Final = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f:.]+)\]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HelloCheck:
    """Of one policy revision: a check of the sender."""

    settings: ListenerGreeting
    own_names: frozenset[str]
    resolver: Resolver
    relay_clients: NetworkSet | None = None

    async def __call__(self, session: Session, mail: Mail) -> Reply | None:  # noqa: ARG002
        if session.user or session.client_address in (self.relay_clients or ()):
            return None
        literal = _LITERAL.fullmatch(session.host)
        address = parse_address(literal[1]) if literal else None
        name = None if session.host.startswith("[") else _name(session.host)
        if self.settings.hello_syntax is Switch.REFUSE and address is None and (name is None or not _is_qualified(name)):
            return replies.HELLO_UNQUALIFIED
        if self.settings.hello_own is Switch.REFUSE and self._is_own(session, name, address):
            return replies.HELLO_OURS
        if self.settings.hello_resolves is Switch.REFUSE and address is None and not await self._resolves(name):
            return replies.HELLO_UNKNOWN
        return None

    def _is_own(self, session: Session, name: str | None, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
        own = parse_address(session.server_address.rpartition(":")[0].strip("[]"))
        return name in self.own_names or (address is not None and address == own and session.client_address != str(own))

    async def _resolves(self, name: str | None) -> bool:
        """Whether there is a host, or a domain that takes mail, of that name; also when DNS does not say."""
        if name is None:
            return False
        try:
            async with asyncio.timeout(HELLO_LOOKUP_S):
                addresses = await self.resolver.addresses(name)
                if addresses.outcome is not Outcome.NONE:
                    return True
                return addresses.name_exists and (await self.resolver.mail_exchangers(name)).outcome is not Outcome.NONE
        except TimeoutError:
            return True


def _name(host: str) -> str | None:
    try:
        return normalise_domain(host)
    except ValueError:
        return None


def _is_qualified(name: str) -> bool:
    return "." in name and "_" not in name and not name.rpartition(".")[2].isdigit()


def hello_checks(listener: ListenerPolicy, filters: Filters, resolver: Resolver) -> tuple[SenderCheck, ...]:
    """None when all switches are off."""
    settings = listener.greeting
    if Switch.REFUSE not in (settings.hello_syntax, settings.hello_own, settings.hello_resolves):
        return ()
    return (HelloCheck(settings, filters.own_names, resolver, filters.relay_clients),)
