"""Connections to one daemon: a bounded number, kept open for the next question, over TCP or a UNIX socket.

Plain non-blocking sockets: a daemon that has enough says so and hangs up while we still send, and what it said must be read all the same, which
a stream of asyncio throws away. Whoever uses a link bounds the time.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from postern_screener.engines.answers import EngineError

IDLE_S: Final = 20.0  # clamd hangs up after 30 (CommandReadTimeout)


@dataclass(slots=True)
class Link:
    """One connection. `used` says that it had a question before: a break may then only mean that the daemon grew tired of it."""

    socket: socket.socket
    used: bool = False
    reusable: bool = False  # set by whoever has read a whole answer and may ask on
    idle_since: float = 0.0

    async def send(self, data: bytes | memoryview) -> None:
        """OSError when it breaks."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def receive(self) -> bytes:
        """What comes next; nothing: the daemon hung up. OSError when it breaks."""
        return await asyncio.get_running_loop().sock_recv(self.socket, 65_536)

    def close(self) -> None:
        self.socket.close()

    @property
    def is_stale(self) -> bool:
        """Something came in without a question, if only the end."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


class Links:
    """At most `most` to `address` (host:port, or a path); who comes when all are taken waits."""

    def __init__(self, address: str, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._address = address
        self._places = asyncio.Semaphore(most)
        self._idle: list[Link] = []  # the one used last is the last
        self._clock = clock
        self._closed = False

    @asynccontextmanager
    async def link(self, *, fresh: bool = False) -> AsyncIterator[Link]:
        """One for a question. It is kept when it is `reusable` at the end, and closed after any error. EngineError: there is nobody."""
        async with self._places:
            link = (None if fresh else self._take_idle()) or await self._connect()
            link.reusable = False
            try:
                yield link
            except BaseException:
                link.close()
                raise
            link.used, link.idle_since = True, self._clock()
            if link.reusable and not self._closed:
                self._idle.append(link)
            else:
                link.close()

    def close(self) -> None:
        """Those that are in use are closed when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    @property
    def idle(self) -> int:
        return len(self._idle)

    def _take_idle(self) -> Link | None:
        while self._idle:
            link = self._idle.pop()
            if self._clock() - link.idle_since < IDLE_S and not link.is_stale:
                return link
            link.close()
        return None

    async def _connect(self) -> Link:
        loop = asyncio.get_running_loop()
        found: list[tuple[int, object]] = []
        try:
            if self._address.startswith("/"):
                found = [(socket.AF_UNIX, self._address)]
            else:
                host, _, port = self._address.rpartition(":")
                infos = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
                found = [(family, address) for family, _, _, _, address in infos]
        except (OSError, ValueError) as error:
            raise EngineError(f"{self._address}: {error}") from error
        reason = "no address"
        for family, address in found:
            trying = socket.socket(family, socket.SOCK_STREAM)
            trying.setblocking(False)
            try:
                await loop.sock_connect(trying, address)  # type: ignore[arg-type]
            except OSError as error:
                reason = error.strerror or str(error)
                trying.close()
            except BaseException:
                trying.close()
                raise
            else:
                if family != socket.AF_UNIX:
                    trying.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return Link(trying)
        raise EngineError(f"cannot connect to {self._address}: {reason}")
