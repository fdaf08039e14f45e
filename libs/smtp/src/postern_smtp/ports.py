"""The ports of a gate: opened and closed as the policy says, while sessions go on; without a word in it, where the environment says.

A port that stays is not touched, and one that takes another's place (`*` for one address, TLS for none) is open before that one is closed.
What cannot be opened is told and tried again; the ports that it would replace stay as long as none of the new ones is open, so that a gate never
falls silent for a change of its policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from postern_core.control import UnboundAddress
from postern_core.errors import ConfigurationError
from postern_core.policy import ANYWHERE, Bind
from postern_smtp.tls_door import Doorkeeper, TlsDoor

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BACKLOG: Final = 1024
_RETRY_S: Final = 5.0
_WILDCARDS: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # what `*` says
# where a machine, or a container, has no IPv6
_NO_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen."""

    host: str  # an address or a name; ANYWHERE
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """One address at which to listen; `tls`: from the first octet."""

    address: ListenAddress
    tls: bool

    def __str__(self) -> str:
        return _told(self.address, self.tls)


@dataclass(frozen=True, slots=True)
class _Place:
    """One socket's address: a name may have several."""

    family: socket.AddressFamily
    host: str
    port: int
    tls: bool

    def overlaps(self, other: _Place) -> bool:
        """Whether both cannot listen at the same time without further ado."""
        is_same = self.host == other.host or _WILDCARDS[self.family] in (self.host, other.host)
        return self.family == other.family and self.port == other.port and is_same


@dataclass(frozen=True, slots=True)
class _Opened:
    listening: socket.socket
    server: asyncio.Server | TlsDoor
    address: ListenAddress  # with the port that the system chose


class Ports:
    """`protocol` is made with the addresses of client and load balancer, or with two empty ones; `keeper` is asked before a handshake."""

    def __init__(self, protocol: Callable[[str, str], asyncio.Protocol], keeper: Doorkeeper) -> None:
        self._protocol = protocol
        self._keeper = keeper
        self._environment: tuple[Wanted, ...] = ()
        self._binds: tuple[Wanted, ...] = ()
        self._context: ssl.SSLContext | None = None
        self._is_shared = False
        self._open: dict[_Place, _Opened] = {}
        self._retired: list[TlsDoor] = []  # with handshakes that are going on
        self._changed = asyncio.Event()
        self._is_closed = False
        self.on_change: Callable[[], None] = lambda: None
        self.unbound: tuple[UnboundAddress, ...] = ()

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens, with the ports that the system chose."""
        return tuple(opened.address for opened in self._open.values())

    @property
    def told(self) -> tuple[str, ...]:
        """The same, for people."""
        return tuple(_told(opened.address, place.tls) for place, opened in self._open.items())

    @property
    def handshakes(self) -> int:
        """How many are going on at ports where TLS starts at once."""
        doors = [opened.server for opened in self._open.values()]
        return sum(door.handshakes for door in (*doors, *self._retired) if isinstance(door, TlsDoor))

    def want(self, binds: Iterable[Bind]) -> None:
        """What the policy says from now on; none: what the environment does."""
        wanted = tuple(Wanted(ListenAddress(bind.address, bind.port), bind.tls) for bind in binds)
        if wanted != self._binds:
            self._binds = wanted
            self._changed.set()

    async def start(
        self, environment: Sequence[tuple[ListenAddress, bool]], context: ssl.SSLContext | None, *, is_shared: bool = False
    ) -> None:
        """Open what is wanted; `context` is for the ports with TLS. `is_shared`: other processes of this user listen there as well, and the
        system deals the connections out (SO_REUSEPORT). ConfigurationError when a port of the environment cannot be opened, and is needed."""
        self._environment = tuple(Wanted(address, tls) for address, tls in environment)
        self._context, self._is_shared = context, is_shared
        if self._binds:
            await self._reconcile(self._binds)
            if self._open:
                return
        problems = self.unbound
        await self._reconcile(self._environment)
        if self.unbound:
            self.close()
            raise ConfigurationError(f"cannot listen on {self.unbound[0].address}: {self.unbound[0].problem}")
        self.unbound = problems

    async def run(self, stop: asyncio.Event) -> None:
        """Follow what is wanted until `stop`."""
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._changed.set())
        try:
            while not stop.is_set():
                self._changed.clear()
                await self._reconcile(self._binds or self._environment)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S if self.unbound else None):
                        await self._changed.wait()
        finally:
            stopped.cancel()

    def close(self) -> None:
        """Listen no more, and give up the handshakes that are going on."""
        self._is_closed = True
        for server in (*(opened.server for opened in self._open.values()), *self._retired):
            server.close()

    # --- towards what is wanted

    async def _reconcile(self, wanted: Sequence[Wanted]) -> None:
        before, problems = (self.told, self.unbound), []
        places: dict[_Place, Wanted] = {}
        for each in wanted:
            try:
                places |= dict.fromkeys(await _places(each), each)
            except OSError as error:
                problems.append(_problem(each, error))
        leaving = [place for place in self._open if place not in places]
        for place in [place for place in places if place not in self._open]:
            try:
                self._replace(place, await self._opened(place, leaving))
            except OSError as error:
                if not (places[place].address.host == ANYWHERE and error.errno in _NO_FAMILY):
                    problems.append(_problem(places[place], error))
            if self._is_closed:
                return
        if any(place in self._open for place in places):
            for place in leaving:
                self._retire(place)
        # in the order in which they are wanted
        self._open = {place: self._open[place] for place in dict.fromkeys((*places, *self._open)) if place in self._open}
        self.unbound = tuple(sorted(dict.fromkeys(problems), key=lambda problem: problem.address))
        for problem in self.unbound:
            if problem not in before[1]:
                log.error("gate.not_listening", address=problem.address, reason=problem.problem)
        if (self.told, self.unbound) != before:
            self.on_change()

    async def _opened(self, place: _Place, leaving: Sequence[_Place]) -> _Opened:
        """OSError when it cannot be."""
        beside = [self._open[other].listening for other in leaving if other.overlaps(place)]
        for other in beside:  # both listen for a moment, which the system allows to those that agree
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shares = self._is_shared or bool(beside)
        listening = socket.create_server((place.host, place.port), family=place.family, backlog=_BACKLOG, reuse_port=shares)
        listening.setblocking(False)
        name = listening.getsockname()
        server: asyncio.Server | TlsDoor
        if place.tls and self._context is not None:
            server = TlsDoor(listening, self._context, self._protocol, self._keeper)
        else:
            server = await asyncio.get_running_loop().create_server(
                lambda: self._protocol("", ""), sock=listening, backlog=_BACKLOG
            )
        return _Opened(listening, server, ListenAddress(name[0], name[1]))

    def _replace(self, place: _Place, opened: _Opened) -> None:
        if self._is_closed:
            opened.server.close()
            return
        self._open[place] = opened
        log.info("gate.opened", address=str(opened.address), tls=place.tls)

    def _retire(self, place: _Place) -> None:
        opened = self._open.pop(place)
        log.info("gate.closed", address=str(opened.address), tls=place.tls)
        if isinstance(opened.server, TlsDoor):
            opened.server.retire()
            self._retired = [door for door in (*self._retired, opened.server) if door.handshakes]
        else:
            opened.server.close()


async def _places(wanted: Wanted) -> list[_Place]:
    """OSError for a name that leads nowhere."""
    host, port = wanted.address.host, wanted.address.port
    if host == ANYWHERE:
        return [_Place(family, name, port, wanted.tls) for family, name in _WILDCARDS.items()]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    families = [(socket.AddressFamily(entry[0]), str(entry[4][0])) for entry in found if entry[0] in _WILDCARDS]
    return [_Place(family, name, port, wanted.tls) for family, name in dict.fromkeys(families)]


def _problem(wanted: Wanted, error: OSError) -> UnboundAddress:
    number = error.errno or 0  # those of the resolver are below zero
    return UnboundAddress(address=str(wanted), problem=os.strerror(number) if number > 0 else error.strerror or str(error))


def _told(address: ListenAddress, tls: bool) -> str:
    return f"{address}{' (TLS)' if tls else ''}"
