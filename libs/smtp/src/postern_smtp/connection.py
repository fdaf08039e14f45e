"""One connection under aiosmtpd's protocol: its reader and writer, its clocks, and how it ends. What is said on it stands in server.py.

Clocks: idle (between commands), a command line from its first octet to its end, data (the client must bring some kilobytes in that time, so
that one octet a minute does not hold a connection), whole session, and STARTTLS on a gate that requires it; each ends in 421. None of them cuts an acceptance off.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from typing import Final, cast

import structlog
from aiosmtpd.smtp import SMTP

from postern_core.errors import Reply
from postern_core.ids import new_session_id
from postern_core.policy import GateLimits
from postern_core.policy.networks import plain_address
from postern_smtp import replies
from postern_smtp.session import Session

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_READER_OCTETS: Final = 64 * 1024  # the stream reader pauses the client at twice this
_LINGER_S: Final = 5.0  # for the last reply to reach a slow client


class SmtpConnection(SMTP):
    """See the module. `_handle_client` is the subclass's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # not SMTP.__init__: it looks up its hooks by reflection for each connection (0.15 ms), and none of them is used here
        asyncio.StreamReaderProtocol.__init__(
            self, asyncio.StreamReader(limit=_READER_OCTETS, loop=loop), self._cb_client_connected, loop=loop
        )
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self._timeout_handle: asyncio.TimerHandle | None = None
        self._timeout_duration = 300.0
        self._handler_coroutine: asyncio.Task[None] | None = None
        self._session_clock: asyncio.TimerHandle | None = None
        self._tls_clock: asyncio.TimerHandle | None = None
        self._line_clock: asyncio.TimerHandle | None = None  # runs while a line is incomplete
        self._abort_clock: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []  # replies that go out together: a system call for each costs more than making it
        self._expired: Reply | None = None  # a clock that ran out while a message was being stored
        self.is_storing = False
        self._is_in_handshake = False
        self.opened_at = self.quiet_since = loop.time()
        self._end = ""  # how the session ended, for the log
        self.session: Session = Session("")  # type: ignore[assignment]  # ours, not aiosmtpd's

    @abstractmethod
    async def _handle_client(self) -> None:
        """The conversation, from the greeting to the end."""

    @abstractmethod
    def _leave(self) -> None:
        """The session is over: free what it holds, once."""

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        own = transport.get_extra_info("sockname")
        self.session.id = new_session_id()
        self.session.server_address = _host_and_port(own) if own else ""
        if not self.session.client_address:  # else a load balancer announced it
            self.session.client_address = plain_address(str(peer[0])) if peer else ""
        self.session.tls, self.session.certificate_names = tls_of(transport), certificate_names_of(transport)
        self._handler_coroutine = self.loop.create_task(self._handle_client(), name="smtp-session")

    def connection_lost(self, error: Exception | None) -> None:
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self._end = self._end or "lost"
        self.transport = None
        if self._abort_clock is not None:
            self._abort_clock.cancel()
        if self.is_storing:
            self._leave()  # the store runs on: the message is ours then, or it is known not to be
        elif self._handler_coroutine is not None:
            self._handler_coroutine.cancel()

    def eof_received(self) -> bool | None:
        # what the client sent before it closed its side is still answered; a TLS connection cannot be half open
        asyncio.StreamReaderProtocol.eof_received(self)
        return not self.session.tls

    def _reset_timeout(self, duration: float | None = None) -> None:
        # a timer that is set anew for each line costs more than the line: it runs on, and looks when it goes off
        self.quiet_since = self.loop.time()
        is_sooner = duration is not None and duration < self._timeout_duration
        self._timeout_duration = duration or self._timeout_duration
        if self._timeout_handle is None or is_sooner:
            super()._reset_timeout(self._timeout_duration)

    def _timeout_cb(self) -> None:
        left_s = self.quiet_since + self._timeout_duration - self.loop.time()
        if left_s > 0:
            super()._reset_timeout(left_s)
        else:
            self.expire(replies.IDLE_TOO_LONG)

    # --- what the listener calls

    def expire(self, reply: Reply) -> None:
        """End the session with `reply`; a message that is being stored gets its answer first."""
        if self._expired is not None or self.transport is None:
            return
        self._expired = reply
        if self._is_in_handshake:
            self._end = reply.text
            self.transport.abort()
        elif not self.is_storing:
            self._end = reply.text
            self._queue(reply.line())
            self._hang_up()
            if self._handler_coroutine is not None:
                self._handler_coroutine.cancel()

    def abort(self) -> None:
        """End the session without a word."""
        if self.transport is not None:
            self.transport.abort()

    # --- what is said

    def _queue(self, wire: bytes) -> None:
        """Say it before the next wait."""
        self._unsent.append(wire)

    def _flush(self) -> None:
        if self._unsent:
            wire = b"".join(self._unsent)
            self.session.octets_out += len(wire)
            self._writer.write(wire)
            self._unsent.clear()

    async def _send(self) -> None:
        """Say what is queued, and wait until a client that is slow to read has room for more."""
        self._flush()
        await self._writer.drain()

    # --- clocks and the end

    def _start_clocks(self, limits: GateLimits, *, tls_required: bool) -> None:
        self._reset_timeout(limits.idle_timeout_s)
        if limits.session_timeout_s is not None:
            self._session_clock = self.loop.call_later(limits.session_timeout_s, self.expire, replies.SESSION_TOO_LONG)
        if tls_required and not self.session.tls:
            self._tls_clock = self.loop.call_later(limits.tls_deadline_s, self.expire, replies.NO_TLS_IN_TIME)

    def _stop_clocks(self) -> None:
        for clock in (self._timeout_handle, self._session_clock, self._tls_clock, self._line_clock):
            if clock is not None:
                clock.cancel()

    def _hang_up(self) -> None:
        transport = self.transport
        if transport is None:
            return
        with contextlib.suppress(OSError):
            self._flush()
            transport.close()
        # a client that does not read must not hold the socket
        self._abort_clock = self.loop.call_later(_LINGER_S, transport.abort)
        self.transport = None


def tls_of(transport: asyncio.BaseTransport) -> str:
    """Protocol and cipher, "" without TLS."""
    cipher = transport.get_extra_info("cipher")
    return f"{cipher[1]} {cipher[0]}" if cipher else ""


def _host_and_port(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def certificate_names_of(transport: asyncio.BaseTransport) -> tuple[str, ...]:
    """The mail addresses in the client's certificate, or else its common names, in lower case; none when there is none that was verified."""
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return ()
    addresses = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "email"]
    common = [value for name in certificate.get("subject", ()) for kind, value in name if kind == "commonName"]
    return tuple(dict.fromkeys(name.casefold() for name in addresses or common))
