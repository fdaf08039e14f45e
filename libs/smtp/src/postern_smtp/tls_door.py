"""A port where TLS starts at once (RFC 8314 section 3.3): clients are counted before the handshake, not after it.

The event loop's own TLS server makes a connection known when its handshake is over; until then anybody could hold any number of sockets
for the time that a handshake may take, past every limit on connections. Here the limits are asked first, and a client that is over them is
hung up on: it cannot be told why before TLS, and should not cost a handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

log: structlog.stdlib.BoundLogger = structlog.get_logger()

TLS_HANDSHAKE_S: Final = 30.0
TLS_SHUTDOWN_S: Final = 2.0
_OUT_OF_FILES_S: Final = 1.0  # until the next try, when the process can open no more sockets


class TlsDoor:
    """Takes connections on `listening` until `close`."""

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        may_enter: Callable[[str], bool],
        left: Callable[[str], None],
    ) -> None:
        """`may_enter` counts a client address in, or says no; `left` counts it out, when its handshake is over, well or not."""
        self.sockets = (listening,)
        self._context = context
        self._protocol = protocol
        self._may_enter = may_enter
        self._left = left
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="tls-door")

    def close(self) -> None:
        """Take no more, and give up the handshakes that are going on."""
        self._accepting.cancel()
        for handshake in self._handshakes:
            handshake.cancel()
        self.sockets[0].close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self.sockets[0])
            except ConnectionError:
                continue  # gone before it was taken
            except OSError as error:
                log.error("gate.accept_failed", reason=str(error))
                await asyncio.sleep(_OUT_OF_FILES_S)
                continue
            try:
                self._take(connection, str(peer[0]))
            except Exception:  # one connection; the port must not fall silent for it
                log.exception("gate.connection_failed")
                connection.close()

    def _take(self, connection: socket.socket, address: str) -> None:
        if not self._may_enter(address):
            connection.close()
            return
        handshake = asyncio.get_running_loop().create_task(self._shake_hands(connection), name="tls-handshake")
        self._handshakes.add(handshake)
        handshake.add_done_callback(partial(self._done, connection, address))

    async def _shake_hands(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # TLS included: scanners, and clients that gave up
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=TLS_HANDSHAKE_S,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )

    def _done(self, connection: socket.socket, address: str, handshake: asyncio.Task[None]) -> None:
        self._handshakes.discard(handshake)
        if handshake.cancelled():
            connection.close()  # else it is the protocol's by now, or closed
        self._left(address)


async def open_sockets(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listening sockets for every address that `host` has. OSError when one cannot be opened."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            listening = socket.create_server(address, family=family, backlog=backlog)
            listening.setblocking(False)
            sockets.append(listening)
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets
