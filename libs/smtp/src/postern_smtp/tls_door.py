"""A port where TLS starts at once (RFC 8314 section 3.3): clients are counted before the handshake, not after it.

The event loop's own TLS server makes a connection known when its handshake is over; until then anybody could hold any number of sockets
for the time that a handshake may take, past every limit on connections. Here the limits are asked first, and a client that is over them is
hung up on: it cannot be told why before TLS, and should not cost a handshake.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import structlog

from postern_core.policy.networks import plain_address
from postern_smtp.proxy_protocol import HEADER_S, ProxyHeaderError, read_header

log: structlog.stdlib.BoundLogger = structlog.get_logger()

TLS_HANDSHAKE_S: Final = 30.0
TLS_SHUTDOWN_S: Final = 2.0
_OUT_OF_FILES_S: Final = 1.0  # until the next try, when the process can open no more sockets


class Doorkeeper(Protocol):
    """Who decides at the door."""

    def is_trusted_proxy(self, peer: str) -> bool:
        """Whether it is a load balancer, from which a PROXY header comes first."""
        ...

    def header_refused(self, peer: str, reason: str) -> None:
        """Told of a load balancer that sent none, or a wrong one."""
        ...

    def may_enter(self, address: str) -> bool:
        """Count a client in, or say no."""
        ...

    def left(self, address: str) -> None:
        """Count it out: its handshake is over, well or not."""
        ...

    def handshake_failed(self, address: str, reason: str) -> None:
        """Told of a handshake that failed, unless the client only hung up."""
        ...


class TlsDoor:
    """Takes connections on `listening` until `close`."""

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[str, str], asyncio.Protocol],
        keeper: Doorkeeper,
    ) -> None:
        """`protocol` is made with the address of the client, and that of the load balancer that announced it, if one did."""
        self._listening = listening
        self._context = context
        self._protocol = protocol
        self._keeper = keeper
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="tls-door")

    @property
    def handshakes(self) -> int:
        """How many are going on."""
        return len(self._handshakes)

    def retire(self) -> None:
        """Take no more."""
        self._accepting.cancel()
        self._listening.close()

    def close(self) -> None:
        """Take no more, and give up the handshakes that are going on."""
        self.retire()
        for handshake in self._handshakes:
            handshake.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._listening)
            except ConnectionError:
                continue  # gone before it was taken
            except OSError as error:
                log.error("gate.accept_failed", reason=str(error))
                await asyncio.sleep(_OUT_OF_FILES_S)
                continue
            try:
                self._meet(connection, plain_address(str(peer[0])))
            except Exception:  # one connection; the port must not fall silent for it
                log.exception("gate.connection_failed")
                connection.close()

    def _meet(self, connection: socket.socket, peer: str) -> None:
        if not self._keeper.is_trusted_proxy(peer):
            self._take(connection, peer)
            return
        reading = asyncio.get_running_loop().create_task(self._hear(connection, peer), name="proxy-header")
        self._handshakes.add(reading)
        reading.add_done_callback(partial(self._heard, connection))

    async def _hear(self, connection: socket.socket, peer: str) -> None:
        """The PROXY header comes before TLS, and says whose connection it is."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(HEADER_S):
                announced = await read_header(lambda octets: loop.sock_recv(connection, octets))
        except (ProxyHeaderError, OSError) as error:  # a time-out, too
            connection.close()
            if not (isinstance(error, ProxyHeaderError) and error.is_silence):
                self._keeper.header_refused(peer, str(error) or "no PROXY header in time")
            return
        self._take(connection, announced or peer, peer)

    def _heard(self, connection: socket.socket, reading: asyncio.Task[None]) -> None:
        self._handshakes.discard(reading)
        if reading.cancelled():
            connection.close()

    def _take(self, connection: socket.socket, address: str, proxy: str = "") -> None:
        if not self._keeper.may_enter(address):
            connection.close()
            return
        handshake = asyncio.get_running_loop().create_task(self._shake_hands(connection, address, proxy), name="tls-handshake")
        self._handshakes.add(handshake)
        handshake.add_done_callback(partial(self._done, connection, address))

    async def _shake_hands(self, connection: socket.socket, address: str, proxy: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                partial(self._protocol, address, proxy),
                connection,
                ssl=self._context,
                ssl_handshake_timeout=TLS_HANDSHAKE_S,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )
        except ConnectionResetError:
            pass  # it hung up: a client that gave up, or a load balancer that looks whether the port is open
        except OSError as error:  # TLS included
            self._keeper.handshake_failed(address, why_failed(error))

    def _done(self, connection: socket.socket, address: str, handshake: asyncio.Task[None]) -> None:
        self._handshakes.discard(handshake)
        if handshake.cancelled():
            connection.close()  # else it is the protocol's by now, or closed
        self._keeper.left(address)


def why_failed(error: OSError) -> str:
    """Why a handshake failed, in OpenSSL's words where it was OpenSSL that ended it."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return "timed out" if isinstance(error, TimeoutError | ConnectionAbortedError) else "the client hung up"
