"""The sockets of one gate, and all its connections: who may come in, how many, and how they go home when the service stops."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from postern_core.envelope import Client
from postern_core.errors import ConfigurationError, Reply
from postern_core.policy import GateLimits
from postern_smtp import replies
from postern_smtp.acceptance import Acceptance
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.memory import Memory
from postern_smtp.reception import Connection, TellNotice, client_network
from postern_smtp.server import GateConnection
from postern_smtp.session import Transaction
from postern_smtp.tls_door import TlsDoor, open_sockets

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BACKLOG: Final = 1024
_QUIET_S: Final = 10.0  # after which a session makes room for another, when there are too many
_POLITE_S: Final = 1.5  # how long an idle session may wait for its 421 to be an answer


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> tuple[ListenAddress, ...]:
    """`host:port[,host:port…]`, IPv6 in brackets. ValueError that names what is wrong."""
    addresses = []
    for item in text.split(","):
        host, colon, port = item.strip().rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        if not colon or not host or not port.isdigit() or int(port) > 65535 or (":" in host and "[" not in item):
            raise ValueError(f"{item.strip()!r} is not host:port (an IPv6 address stands in brackets)")
        addresses.append(ListenAddress(host, int(port)))
    return tuple(addresses)


class Listener:
    """Takes connections for one gate until `drain`. `newest_rules` gives the policy in force, None while there is none."""

    def __init__(
        self, profile: GateProfile, newest_rules: Callable[[], GateRules | None], acceptance: Acceptance, notice: TellNotice
    ) -> None:
        self.profile = profile
        self.notice = notice
        self.memory = Memory(profile.memory_bytes)
        self.is_draining = False
        self.newest_rules = newest_rules
        self._acceptance = acceptance
        self._ports: list[asyncio.Server | TlsDoor] = []
        self._connections: set[Connection] = set()
        self._per_client: Counter[str] = Counter()
        self._in_handshake: Counter[str] = Counter()  # not connected yet
        self._storing = 0  # messages, also of clients that are gone
        self._fewer = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many sessions are open."""
        return len(self._connections)

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens, with the ports that the system chose."""
        names = [socket.getsockname() for port in self._ports for socket in port.sockets]
        return tuple(ListenAddress(name[0], name[1]) for name in names)

    async def listen(self, address: ListenAddress, *, implicit_tls: ssl.SSLContext | None = None) -> None:
        """Open a port; with `implicit_tls`, TLS starts at once (RFC 8314 section 3.3). ConfigurationError when it cannot be opened."""
        loop = asyncio.get_running_loop()

        def connection() -> GateConnection:
            return GateConnection(self, loop)

        try:
            if implicit_tls is None:
                self._ports.append(await loop.create_server(connection, address.host, address.port, backlog=_BACKLOG))
            else:
                for opened in await open_sockets(address.host, address.port, _BACKLOG):
                    self._ports.append(TlsDoor(opened, implicit_tls, connection, self._may_enter, self._left))
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}") from error
        log.info("gate.opened", address=str(self.addresses[-1]), tls=implicit_tls is not None)

    # --- what a connection asks

    def unavailable(self) -> Reply | None:
        return self._acceptance.unavailable()

    async def store(self, transaction: Transaction, client: Client, body: bytes, *, extended: bool) -> Reply:
        """Store a message, and return the reply; it counts until then, also when its client is gone meanwhile."""
        octets = len(body)
        self._storing += 1
        self.memory.storing(octets)
        try:
            return await self._acceptance.accept(transaction, client, body, extended=extended, sessions=self.connections)
        finally:
            self.memory.storing(-octets)
            self._storing -= 1
            self._fewer.set()

    def admit(self, connection: Connection) -> Reply | None:
        """Count a connection in; the reply that turns it away, or None."""
        client = client_network(connection.session.client_address)
        self._connections.add(connection)
        self._per_client[client] += 1
        refusal = self._refusal(len(self._connections), self._per_client[client])
        if refusal is replies.TOO_MANY_CONNECTIONS and self._make_room():
            refusal = None
        if refusal is not None:
            log.warning("connection.refused", client=connection.session.client_address, reply=str(refusal))
        return refusal

    def _refusal(self, connections: int, of_client: int) -> Reply | None:
        rules = self.newest_rules()
        limits = rules.limits if rules is not None else GateLimits()
        if self.is_draining:
            return replies.SHUTTING_DOWN
        if limits.max_connections_per_client is not None and of_client > limits.max_connections_per_client:
            return replies.TOO_MANY_OF_YOURS
        if limits.max_connections is not None and connections > limits.max_connections:
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

    def _may_enter(self, address: str) -> bool:
        client = client_network(address)
        connections = len(self._connections) + self._in_handshake.total() + 1
        refusal = self._refusal(connections, self._per_client[client] + self._in_handshake[client] + 1)
        if refusal is replies.TOO_MANY_CONNECTIONS and self._make_room():
            refusal = None
        if refusal is not None:
            log.warning("connection.refused", client=address, reply=str(refusal))
            return False
        self._in_handshake[client] += 1
        return True

    def _left(self, address: str) -> None:
        client = client_network(address)
        self._in_handshake[client] -= 1
        if not self._in_handshake[client]:
            del self._in_handshake[client]

    def release(self, connection: Connection) -> None:
        """Count a connection out."""
        if connection in self._connections:
            self._connections.remove(connection)
            client = client_network(connection.session.client_address)
            self._per_client[client] -= 1
            if not self._per_client[client]:
                del self._per_client[client]
        self._fewer.set()

    # --- the end

    async def drain(self, within_s: float) -> None:
        """Take no more connections; let each session finish its message, then send it home with 421 4.3.2. Cuts off what is left
        after `within_s`, but for messages whose storing has begun and ends within the acceptance's own time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        self.is_draining = True
        for port in self._ports:
            port.close()
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
