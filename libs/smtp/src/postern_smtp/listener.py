"""The sockets of one gate, and all its connections: who may come in, how many, and how they go home when the service stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from postern_core.counters import CounterName, Counters, Labelled
from postern_core.envelope import Client
from postern_core.errors import Reply
from postern_core.notices import NoticeKind, TellNotice
from postern_core.policy import GateLimits, GateState
from postern_smtp import replies
from postern_smtp.acceptance import Acceptance
from postern_smtp.admission import Crowd, denial, overcrowding
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.journal import TellSession
from postern_smtp.memory import Memory
from postern_smtp.overload import REPLIES, Overload, Sign
from postern_smtp.ports import ListenAddress, Ports
from postern_smtp.reception import Connection
from postern_smtp.server import GateConnection
from postern_smtp.session import Session, Transaction

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_QUIET_S: Final = 10.0  # after which a session makes room for another, when there are too many
_QUEUED: Final = 250
_RECEIVED, _SENT = "received", "sent"
_POLITE_S: Final = 1.5  # how long an idle session may wait for its 421 to be an answer


class Listener:
    """Takes connections for one gate until `drain`. `newest_rules` gives the policy in force, None while there is none."""

    def __init__(
        self,
        profile: GateProfile,
        newest_rules: Callable[[], GateRules | None],
        acceptance: Acceptance,
        notice: TellNotice,
        tell_session: TellSession,
    ) -> None:
        self.profile = profile
        self.notice = notice
        self.tell_session = tell_session
        self.memory = Memory(profile.memory_bytes)
        self.overload = Overload(self.memory)
        self.counters = Counters()
        self.is_draining = False
        self.state = GateState.OPEN  # that an administrator wants: `follow`
        self.newest_rules = newest_rules
        self._acceptance = acceptance
        self.ports = Ports(self._meet, self)
        self._connections: set[Connection] = set()
        self._crowd = Crowd()  # the same, counted
        self._in_handshake = Crowd()  # not connected yet
        self._arriving: set[Connection] = set()  # of load balancers, that have not said yet whose they are
        self._storing = 0  # messages, also of clients that are gone
        self._fewer = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many sessions are open."""
        return len(self._connections)

    @property
    def open_connections(self) -> tuple[Connection, ...]:
        """The sessions that are open."""
        return tuple(self._connections)

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens, with the ports that the system chose."""
        return self.ports.addresses

    def _meet(self, client: str, proxy: str) -> GateConnection:
        """A connection, of `client` if a load balancer (`proxy`) or a TLS port has said so."""
        connection = GateConnection(self, asyncio.get_running_loop())
        connection.session.client_address, connection.session.proxy_address = client, proxy
        return connection

    # --- what a connection asks

    def farewell(self, session: Session) -> Reply | None:
        """Why the session is sent home now: the service ends, or an administrator drained the gate, which lets a transaction be finished."""
        if self.is_draining:
            return replies.SHUTTING_DOWN
        if self.state is GateState.DRAINED and session.transaction is None:
            return replies.NOT_TAKING_MAIL
        return None

    def unavailable(self) -> Reply | None:
        return self._acceptance.unavailable() or self._busy(self.overload.standing)

    def transaction_refusal(self) -> Reply | None:
        return self._busy(self.overload.transaction_refusal)

    def _busy(self, ask: Callable[[float], Sign | None]) -> Reply | None:
        sign = ask(asyncio.get_running_loop().time())
        if sign is None:
            return None
        self.notice(NoticeKind.OVERLOADED, sign.value)
        return REPLIES[sign]

    async def store(self, transaction: Transaction, client: Client, body: bytes, *, extended: bool) -> Reply:
        """Store a message, and return the reply; it counts until then, also when its client is gone meanwhile."""
        loop, reply, storing = asyncio.get_running_loop(), None, None
        self._storing += 1
        octets = len(body)
        self.memory.storing(octets)  # also while it is examined

        def on_its_way() -> None:
            nonlocal storing
            self.memory.storing(-octets)
            storing = self.overload.begin(octets, loop.time())

        try:
            reply = await self._acceptance.accept(
                transaction, client, body, extended=extended, sessions=self.connections, on_its_way=on_its_way
            )
            if reply.code == _QUEUED:
                self.counters.add(CounterName.ACCEPTED_MESSAGES)
                self.counters.add(CounterName.ACCEPTED_RECIPIENTS, by=len(transaction.recipients))
                self.counters.add(CounterName.ACCEPTED_BYTES, by=octets)
            return reply
        finally:
            if storing is not None:
                self.overload.end(storing, reply, loop.time())
            else:
                self.memory.storing(-octets)
            self._storing -= 1
            self._fewer.set()

    def admit(self, connection: Connection) -> Reply | None:
        """Count a connection in; the reply that turns it away, or None."""
        address = connection.session.client_address
        self._arriving.discard(connection)
        self._connections.add(connection)
        self._crowd.add(address)
        refusal = self._refusal(address, self._crowd, is_inside=bool(connection.session.tls))
        if refusal is None and self.state is not GateState.OPEN:
            refusal = replies.NOT_TAKING_MAIL  # also inside TLS from the first octet, where it can be said only now
        if refusal is not None:
            log.warning("connection.refused", client=address, reply=str(refusal))
            self.counters.add(CounterName.CONNECTIONS_REFUSED, str(refusal.code))
        else:
            self.counters.add(CounterName.SESSIONS)
        return refusal

    def awaits_header(self, connection: Connection) -> bool:
        """Whether its peer is a trusted load balancer, which has to say first whose connection it is."""
        is_awaited = self.is_trusted_proxy(connection.session.client_address)
        if is_awaited:
            self._arriving.add(connection)
        return is_awaited

    def is_trusted_proxy(self, peer: str) -> bool:
        rules = self.newest_rules()
        return rules is not None and bool(rules.trusted_proxies) and peer in rules.trusted_proxies

    def _refusal(self, address: str, *crowds: Crowd, is_inside: bool = False) -> Reply | None:
        """`is_inside`: it was asked about before its handshake, and is in by now."""
        rules = self.newest_rules()
        limits = rules.limits if rules is not None else GateLimits()
        if self.is_draining:
            return replies.SHUTTING_DOWN
        denied = denial(rules, address)
        if denied is not None:
            self.notice(NoticeKind.CONNECTION_DENIED, address, reply=str(denied))
            return denied
        crowded = overcrowding(limits, address, *crowds)
        if crowded is not None:
            return crowded
        if not is_inside and self._busy(self.overload.connection_refusal) is not None:
            return replies.TOO_BUSY
        connections = sum(crowd.total() for crowd in crowds) + len(self._arriving)
        if limits.max_connections is not None and connections > limits.max_connections and not self._make_room():
            self.notice(NoticeKind.OVERLOADED, "connections")
            return replies.TOO_MANY_CONNECTIONS
        return None

    def _make_room(self) -> bool:
        """End the session that has been quiet for longest, if that was some time; so that idle clients do not keep all others out."""
        quiet = [connection for connection in self._connections if not connection.is_storing]
        longest = min(quiet, key=lambda connection: connection.quiet_since, default=None)
        if longest is None or asyncio.get_running_loop().time() - longest.quiet_since < _QUIET_S:
            return False
        longest.expire(replies.TOO_MANY_CONNECTIONS)
        self.release(longest)
        return True

    def may_enter(self, address: str) -> bool:
        self._in_handshake.add(address)
        refusal = self._refusal(address, self._crowd, self._in_handshake)
        if refusal is not None:
            log.warning("connection.refused", client=address, reply=str(refusal))
            self.counters.add(CounterName.CONNECTIONS_REFUSED, str(refusal.code))
            self._in_handshake.remove(address)
            return False
        return True

    def left(self, address: str) -> None:
        self._in_handshake.remove(address)

    def header_refused(self, peer: str, reason: str) -> None:
        log.warning("proxy.refused", peer=peer, reason=reason)
        self.notice(NoticeKind.CONNECTION_DENIED, peer, reason=reason, trusted_proxy=True)

    def handshake_failed(self, address: str, reason: str) -> None:
        log.info("tls.failed", client=address, reason=reason)
        self.notice(NoticeKind.TLS_FAILED, address, reason=reason)

    def release(self, connection: Connection) -> None:
        """Count a connection out."""
        self._arriving.discard(connection)
        if connection in self._connections:
            self._connections.remove(connection)
            self._crowd.remove(connection.session.client_address)
            self.counters.add(CounterName.OCTETS, _RECEIVED, connection.session.octets_in)
            self.counters.add(CounterName.OCTETS, _SENT, connection.session.octets_out)
        self._fewer.set()

    def counted(self) -> dict[str, Labelled]:
        """All counters as they stand; octets of sessions that are open are in them, too."""
        told = self.counters.told()
        octets = told.setdefault(CounterName.OCTETS.value, {})
        for label, open_sessions in (
            (_RECEIVED, sum(connection.session.octets_in for connection in self._connections)),
            (_SENT, sum(connection.session.octets_out for connection in self._connections)),
        ):
            octets[label] = octets.get(label, 0) + open_sessions
        return told

    # --- what an administrator wants

    def follow(self, state: GateState) -> None:
        """Be open, paused or drained from now on."""
        if state is self.state:
            return
        log.info("gate.state_changed", before=self.state.value, after=state.value, sessions=self.connections)
        self.state = state
        if state is GateState.DRAINED:
            for connection in tuple(self._connections):
                if not connection.is_busy and connection.session.transaction is None:
                    connection.expire(replies.NOT_TAKING_MAIL)

    # --- the end

    async def drain(self, within_s: float) -> None:
        """Take no more connections; let each session finish its message, then send it home with 421 4.3.2. Cuts off what is left
        after `within_s`, but for messages whose storing has begun and ends within the acceptance's own time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        self.is_draining = True
        self.ports.close()
        for arriving in tuple(self._arriving):
            arriving.abort()
        await self._emptied(min(loop.time() + _POLITE_S, deadline))
        for connection in tuple(self._connections):
            if not connection.is_busy:
                connection.expire(replies.SHUTTING_DOWN)
        await self._emptied(deadline)
        if self._connections:
            log.warning("drain.cut_off", sessions=len(self._connections))
            for connection in tuple(self._connections):
                connection.expire(replies.SHUTTING_DOWN)
            await self._emptied(loop.time() + 0.5)
            for connection in tuple(self._connections):
                connection.abort()

    async def _emptied(self, deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._connections or self._storing:
                    self._fewer.clear()
                    await self._fewer.wait()
