"""The sockets of one gate, and all its connections: who may come in, how many, and how they go home when the service stops."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
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
from postern_smtp.reception import Connection, Memory
from postern_smtp.server import TLS_HANDSHAKE_S, TLS_SHUTDOWN_S, GateConnection
from postern_smtp.session import Transaction

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BACKLOG: Final = 1024
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

    def __init__(self, profile: GateProfile, newest_rules: Callable[[], GateRules | None], acceptance: Acceptance) -> None:
        self.profile = profile
        self.memory = Memory(profile.memory_bytes)
        self.is_draining = False
        self.newest_rules = newest_rules
        self._acceptance = acceptance
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._per_client: Counter[str] = Counter()
        self._storing: set[asyncio.Task[Reply]] = set()
        self._fewer = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many sessions are open."""
        return len(self._connections)

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens, with the ports that the system chose."""
        names = [socket.getsockname() for server in self._servers for socket in server.sockets]
        return tuple(ListenAddress(name[0], name[1]) for name in names)

    async def listen(self, address: ListenAddress, *, implicit_tls: ssl.SSLContext | None = None) -> None:
        """Open a port; with `implicit_tls`, TLS starts at once (RFC 8314 section 3.3). ConfigurationError when it cannot be opened."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: GateConnection(self, loop),
                address.host,
                address.port,
                backlog=_BACKLOG,
                ssl=implicit_tls,
                ssl_handshake_timeout=TLS_HANDSHAKE_S if implicit_tls else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S if implicit_tls else None,
            )
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}") from error
        self._servers.append(server)
        log.info("gate.opened", address=str(self.addresses[-1]), tls=implicit_tls is not None)

    # --- what a connection asks

    def unavailable(self) -> Reply | None:
        return self._acceptance.unavailable()

    def store(self, transaction: Transaction, client: Client, body: bytes, *, extended: bool) -> asyncio.Task[Reply]:
        """Begin to store a message, and own the task until it is done."""
        storing = asyncio.create_task(self._acceptance.accept(transaction, client, body, extended=extended), name="acceptance")
        self._storing.add(storing)
        storing.add_done_callback(self._stored)
        return storing

    def _stored(self, storing: asyncio.Task[Reply]) -> None:
        self._storing.discard(storing)
        self._fewer.set()

    def admit(self, connection: Connection) -> Reply | None:
        """Count a connection in; the reply that turns it away, or None."""
        rules = self.newest_rules()
        limits = rules.limits if rules is not None else GateLimits()
        client = _network(connection.session.client_address)
        self._connections.add(connection)
        self._per_client[client] += 1
        refusal: Reply | None = None
        if self.is_draining:
            refusal = replies.SHUTTING_DOWN
        elif limits.max_connections is not None and len(self._connections) > limits.max_connections:
            refusal = replies.TOO_MANY_CONNECTIONS
        elif limits.max_connections_per_client is not None and self._per_client[client] > limits.max_connections_per_client:
            refusal = replies.TOO_MANY_OF_YOURS
        if refusal is not None:
            log.warning("connection.refused", client=connection.session.client_address, reply=str(refusal))
        return refusal

    def release(self, connection: Connection) -> None:
        """Count a connection out."""
        if connection in self._connections:
            self._connections.remove(connection)
            client = _network(connection.session.client_address)
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
        for server in self._servers:
            server.close()
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


def _network(address: str) -> str:
    """Who counts as one client: an IPv4 address, or an IPv6 /64, which is what one customer has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
