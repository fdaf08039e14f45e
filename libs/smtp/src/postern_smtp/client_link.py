"""One TCP connection to a next hop: bytes out with back-pressure, replies in, each wait with its time-out.

It knows replies but no dialogue. One task uses it at a time. Whatever ends the connection, or makes what arrives unreadable,
surfaces as `LinkLost`, after the replies that came before it have been read.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from postern_smtp.client_wire import RawReply, ReplyParser

_SPARE_REPLIES = 64  # that may arrive on top of those to the commands under way; a peer that sends more is flooding us


class LinkLost(Exception):  # noqa: N818 - names what happened
    """The connection ended, timed out, or is out of step; the text says how."""


class PeerSilent(LinkLost):
    """It timed out: the peer neither answers nor reads."""


class NotTrusted(LinkLost):
    """TLS itself failed: a certificate that is not valid, or nothing in common. The same will happen next time."""


class Link(asyncio.Protocol):
    """See the module. Made by `asyncio`'s `create_connection`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = ReplyParser()
        self._waiter: asyncio.Future[bool] | None = None
        self._can_write = True
        self._most_unread = _SPARE_REPLIES
        self._ended = ""  # why the connection is no more

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        if len(self._parser.replies) > self._most_unread:
            self._end("peer sent replies that nobody asked for")
            self.abort()
        self._wake()

    def eof_received(self) -> bool:
        self._end("peer closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._can_write = True
        self._end(f"connection lost: {exc}" if exc else "connection closed")

    def pause_writing(self) -> None:
        self._can_write = False

    def resume_writing(self) -> None:
        self._can_write = True
        self._wake()

    def _end(self, reason: str) -> None:
        self._ended = self._ended or reason
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    async def _wait(self, deadline: float) -> bool:
        """Until something happens: True; or the loop's clock passes `deadline`: False."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiter = waiter
        timer = self._loop.call_at(deadline, _expire, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiter = None

    # -- called by the dialogue

    @property
    def is_idle(self) -> bool:
        """Whether the connection stands and the peer said nothing unasked (as 421 before it closes)."""
        return not self._ended and self._parser.is_idle

    @property
    def has_reply(self) -> bool:
        """Whether a reply, or an error in its place, is there to be read without waiting."""
        return bool(self._parser.replies or self._parser.error)

    @property
    def is_writable(self) -> bool:
        """Whether the peer has taken enough for more to be written, and says nothing meanwhile; else see `drained`."""
        return self._can_write and not self.has_reply

    def write(self, data: bytes | memoryview, *, commands: int = 1) -> None:
        """Hand over to the transport; see `drained` for back-pressure. LinkLost when the connection is gone.

        `commands`: how many of them `data` holds, since so many replies may come in at once.
        """
        self._most_unread = commands + _SPARE_REPLIES
        if self._transport is None or self._ended:
            if self.has_reply:
                return  # the peer said why before it closed; `reply` has it
            raise LinkLost(self._ended or "not connected")
        self._transport.write(data)

    async def drained(self, timeout_s: float) -> None:
        """Until the peer has taken enough for more to be written, or says something."""
        deadline = self._loop.time() + timeout_s
        while not self._can_write and not self.has_reply:
            if self._ended:
                raise LinkLost(self._ended)
            if not await self._wait(deadline):
                raise PeerSilent(f"peer took no data for {timeout_s:g} s")

    def take_reply(self) -> RawReply | None:
        """The next reply if it is there already."""
        replies = self._parser.replies
        return replies.popleft() if replies else None

    async def reply(self, timeout_s: float) -> RawReply:
        """The next reply, whole within `timeout_s`, however it drips in."""
        parser = self._parser
        deadline = self._loop.time() + timeout_s
        while True:
            if parser.replies:
                return parser.replies.popleft()
            if parser.error:
                raise LinkLost(parser.error)
            if self._ended:
                raise LinkLost(self._ended)
            if not await self._wait(deadline):
                raise PeerSilent(f"no reply within {timeout_s:g} s")

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str, timeout_s: float) -> str:
        """Handshake; returns the protocol version. LinkLost when it fails: the connection is of no use then.

        What the peer sent in plaintext behind its reply to STARTTLS is forgotten (response injection): nothing is awaited
        between that and the hand-over of the transport to TLS.
        """
        if self._transport is None or self._ended:
            raise LinkLost(self._ended or "not connected")
        self._parser = ReplyParser()
        try:
            async with asyncio.timeout(timeout_s):
                secured = await self._loop.start_tls(self._transport, self, context, server_hostname=server_hostname)
        except (OSError, ValueError, TimeoutError) as error:  # ssl.SSLError and CertificateError are OSErrors
            self.abort()
            lasts = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
            failure = NotTrusted if lasts else LinkLost
            raise failure(f"TLS handshake failed: {error or type(error).__name__}") from error
        if secured is None:  # the peer hung up in the same moment
            self.abort()
            raise LinkLost("TLS handshake failed: connection closed")
        self._transport = secured
        tls = secured.get_extra_info("ssl_object")
        return str(tls.version())

    async def close(self, timeout_s: float) -> None:
        """Close in order (TLS close_notify included), by force after `timeout_s`."""
        try:
            # closed twice, a TLS transport of Python 3.11.2 (Debian 12) cannot be aborted any more
            if self._transport is not None and not self._transport.is_closing():
                self._transport.close()
            deadline = self._loop.time() + timeout_s
            while not self._ended and await self._wait(deadline):
                pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Close at once; what was not sent yet stays unsent."""
        if self._transport is not None:
            self._transport.abort()
        self._end("closed by us")


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
