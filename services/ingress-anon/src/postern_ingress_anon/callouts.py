"""Callouts: the smart hosts of a route are asked whether they would take mail for a mailbox, by a client_asking session.

What a reply to RCPT means: 2yz, it exists; 55y but 555, it does not; all else (4yz, and 5yz about the command or the session) says
nothing about the mailbox. A next hop that cannot be asked is passed over for the route's next one.
Once for each domain and day, a mailbox that nobody can have is asked for, too. Where that exists, the next hop takes anything: it is logged, and
for that day it is not asked any more.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import Final

import structlog

from postern_core.policy import CalloutRoute
from postern_ingress_anon.questions import Mailbox
from postern_smtp.client_asking import AskingSession, NotAsked
from postern_smtp.client_types import ClientOptions, ServerReply

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_DAY_S: Final = 24 * 3600.0
_MAX_DOMAINS: Final = 10_000
_STEP_S: Final = 10.0  # each step; the question as a whole is bounded by whoever asks


class Callouts:
    """One for each process."""

    def __init__(self) -> None:
        # until when it is known, and whether these hosts take anything
        self._probed: OrderedDict[tuple[CalloutRoute, str], tuple[float, bool]] = OrderedDict()

    async def ask(self, address: str, route: CalloutRoute, hostname: str) -> Mailbox:
        """Whether the route's next hops know the mailbox. Raises nothing."""
        domain = address.rpartition("@")[2]
        if self._takes_anything(route, domain):
            return Mailbox.EXISTS
        options = ClientOptions(
            helo_name=hostname,
            use_helo=route.use_helo,
            tls=route.tls,
            connect_timeout_s=_STEP_S,
            command_timeout_s=_STEP_S,
        )
        for next_hop in route.next_hops:
            try:
                async with AskingSession(next_hop, options, utf8=not address.isascii()) as session:
                    mailbox = _meaning(reply := await session.reply_to(address))
                    log.info("callout.answered", route=route.name, next_hop=next_hop.host, domain=domain, reply=str(reply))
                    if mailbox is Mailbox.EXISTS and not self._is_probed(route, domain):
                        await self._probe(session, route, domain)
                    return mailbox
            except NotAsked as why:
                log.warning("callout.not_asked", route=route.name, next_hop=next_hop.host, reason=str(why))
        return Mailbox.UNAVAILABLE

    async def _probe(self, session: AskingSession, route: CalloutRoute, domain: str) -> None:
        try:
            reply = await session.reply_to(f"postern-probe-{secrets.token_hex(8)}@{domain}")
        except NotAsked:
            return  # the first answer stands, and the next question tries again
        takes_anything = _meaning(reply) is Mailbox.EXISTS
        if takes_anything:
            log.warning("callout.takes_anything", route=route.name, domain=domain)
        self._probed[route, domain] = (asyncio.get_running_loop().time() + _DAY_S, takes_anything)
        self._probed.move_to_end((route, domain))
        while len(self._probed) > _MAX_DOMAINS:
            self._probed.popitem(last=False)

    def _is_probed(self, route: CalloutRoute, domain: str) -> bool:
        return self._probed.get((route, domain), (0.0, False))[0] > asyncio.get_running_loop().time()

    def _takes_anything(self, route: CalloutRoute, domain: str) -> bool:
        return self._is_probed(route, domain) and self._probed[route, domain][1]


def _meaning(reply: ServerReply) -> Mailbox:
    if reply.code // 100 == 2:
        return Mailbox.EXISTS
    # 500 to 504 and 555 are about the command, 521, 530 and 535 about us
    return Mailbox.UNKNOWN if reply.code >= 550 and reply.code != 555 else Mailbox.UNDECIDED
