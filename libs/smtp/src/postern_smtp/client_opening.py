"""Opening a session: connect, greeting, EHLO or HELO, STARTTLS as the route asks, AUTH.

    connect ─▶ greeting ─▶ EHLO (─▶ HELO) ─▶ STARTTLS ─▶ EHLO again ─▶ AUTH ─▶ session
                                                │ opportunistic, and the handshake failed
                                                └▶ connect anew, without TLS

Each address of the host is tried in turn, at most five, until one grants a session (RFC 5321 section 5.1).
What was learnt before TLS is forgotten (RFC 3207 section 4.2).
Passwords are sent inside TLS only; where they cannot be, the session fails instead of going on without them.
Every failure is `ConnectionFailed` and leaves no connection behind.
Standards: RFC 5321 sections 3.1, 3.2, 4.1.1.1, 5.1; RFC 3207; RFC 7435 (opportunistic); RFC 4954, 4616 (AUTH PLAIN).
"""

from __future__ import annotations

import asyncio
import base64
import functools
import socket
import ssl
from dataclasses import dataclass
from typing import NoReturn

import structlog

from postern_core.policy import NextHop, RouteTls
from postern_smtp.client_link import Link, LinkLost, NotTrusted
from postern_smtp.client_types import ClientOptions, ConnectionFailed, ServerReply
from postern_smtp.client_wire import Extensions, RawReply, hello_command

_MAX_ADDRESSES = 5
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Session:
    """An open session, ready for MAIL."""

    link: Link
    extensions: Extensions
    tls_version: str  # as "TLSv1.3", "" without TLS
    verified: bool = False  # the certificate is valid for the next hop's name


class _HandshakeFailed(Exception):  # noqa: N818 - names what happened
    """STARTTLS was agreed on, and TLS did not come about."""

    def __init__(self, lost: LinkLost) -> None:
        super().__init__(str(lost))
        self.lasts = isinstance(lost, NotTrusted)


async def open_session(next_hop: NextHop, options: ClientOptions) -> Session:
    """A session with `next_hop`. Raises ConnectionFailed, whose `stage` says how far it got with the address that said most."""
    failures: list[ConnectionFailed] = []
    for address in await _addresses(next_hop, options.connect_timeout_s):
        try:
            return await _open_at(address, next_hop, options)
        except ConnectionFailed as failed:
            failures.append(failed)
            if failed.stage == "auth":
                break  # the same credentials at the next address would only look like an attack
    telling = next((failed for failed in reversed(failures) if failed.reply is not None), failures[-1])
    reason = "; ".join(dict.fromkeys(failed.reason for failed in failures))
    insecure = all(failed.insecure for failed in failures)
    raise ConnectionFailed(telling.stage, reason, telling.reply, next_hop, insecure=insecure) from telling


async def _addresses(next_hop: NextHop, timeout_s: float) -> list[str]:
    """The addresses of the host, at least one, in the order in which the resolver prefers them."""
    try:
        async with asyncio.timeout(timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(next_hop.host, next_hop.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        reason = f"{next_hop.host}: name look-up failed: {error or 'timed out'}"
        raise ConnectionFailed("connect", reason, next_hop=next_hop) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:_MAX_ADDRESSES]


async def _open_at(address: str, next_hop: NextHop, options: ClientOptions) -> Session:
    try:
        return await _open(address, next_hop, options, try_tls=options.tls is not RouteTls.OFF)
    except _HandshakeFailed as failure:
        if options.tls is not RouteTls.OPPORTUNISTIC or options.credentials is not None:
            raise ConnectionFailed("starttls", str(failure), insecure=failure.lasts) from failure
        _log.warning("tls.fell_back", next_hop=next_hop.host, port=next_hop.port, reason=str(failure))
        return await _open(address, next_hop, options, try_tls=False)


async def _open(address: str, next_hop: NextHop, options: ClientOptions, *, try_tls: bool) -> Session:
    link = await _connect(address, next_hop.port, options.connect_timeout_s)
    opening = _Opening(link, next_hop, options)
    try:
        return await opening.run(try_tls=try_tls)
    except LinkLost as lost:
        link.abort()
        raise ConnectionFailed(opening.stage, str(lost)) from lost
    except BaseException:  # cancelled, too: nothing may stay open behind us
        link.abort()
        raise


async def _connect(address: str, port: int, timeout_s: float) -> Link:
    try:
        async with asyncio.timeout(timeout_s):
            _, link = await asyncio.get_running_loop().create_connection(Link, address, port)
    except (OSError, TimeoutError) as error:
        reason = f"{address}: {error or f'no connection within {timeout_s:g} s'}"
        raise ConnectionFailed("connect", reason) from error
    return link


class _Opening:
    """The dialogue up to the first MAIL; `stage` is where it stands."""

    def __init__(self, link: Link, next_hop: NextHop, options: ClientOptions) -> None:
        self.stage = "connect"
        self._link = link
        self._next_hop = next_hop
        self._options = options

    async def run(self, *, try_tls: bool) -> Session:
        greeting = await self._reply()
        if greeting.code != 220:
            await self._refused("greeting", greeting)
        extensions = await self._hello()
        tls_version = ""
        if try_tls:
            self.stage = "starttls"
            tls_version = await self._start_tls(extensions)
            if tls_version:
                extensions = await self._hello()
        if self._options.credentials is not None:
            self.stage = "auth"
            await self._authenticate(extensions, *self._options.credentials, inside_tls=bool(tls_version))
        verified = bool(tls_version) and self._options.tls is RouteTls.VERIFY
        return Session(self._link, extensions, tls_version, verified)

    async def _reply(self) -> RawReply:
        return await self._link.reply(self._options.command_timeout_s)

    async def _ask(self, command: bytes) -> RawReply:
        self._link.write(command)
        return await self._reply()

    async def _refused(self, what: str, raw: RawReply) -> NoReturn:
        """A greeting or HELO that is no welcome: say QUIT (RFC 5321 section 3.1) and fail with the reply as it was."""
        reply = raw.decoded()
        refusal = reply if reply.code >= 400 else None  # anything else makes no sense here and decides nothing
        await say_quit(self._link, 1.0)
        raise ConnectionFailed(self.stage, f"{what}: {reply}", refusal)

    def _unusable(self, reason: str, reply: ServerReply | None = None, *, insecure: bool = False) -> NoReturn:
        """STARTTLS or AUTH does not work out. Transient whatever the peer says: see ConnectionFailed."""
        softened = reply and ServerReply(454, "4.7.0", f"{reason}: {reply}")
        raise ConnectionFailed(self.stage, f"{reason}: {reply}" if reply else reason, softened, insecure=insecure)

    async def _hello(self) -> Extensions:
        """EHLO, and HELO where that is not understood (RFC 5321 section 4.1.1.1), or at once where the route says so."""
        self.stage = "ehlo"
        if not self._options.use_helo:
            reply = await self._ask(hello_command("EHLO", self._options.helo_name))
            if reply.code == 250:
                return Extensions.parse(reply)
            if reply.code < 500:
                await self._refused("EHLO", reply)
        reply = await self._ask(hello_command("HELO", self._options.helo_name))
        if reply.code != 250:
            await self._refused("HELO", reply)
        return Extensions()

    async def _start_tls(self, extensions: Extensions) -> str:
        """The protocol version, or "" where the session may go on without TLS."""
        may_do_without = self._options.tls is RouteTls.OPPORTUNISTIC
        if not extensions.starttls:
            if may_do_without:
                return ""
            self._unusable("next hop does not offer STARTTLS, which the route or the message requires", insecure=True)
        try:
            reply = await self._ask(b"STARTTLS\r\n")
            if reply.code != 220:
                if may_do_without and reply.code != 421:
                    return ""
                self._unusable("next hop refused STARTTLS", reply.decoded(), insecure=reply.code >= 500)
            context = _tls_context(verify=self._options.tls is RouteTls.VERIFY)
            return await self._link.start_tls(context, self._next_hop.host, self._options.connect_timeout_s)
        except LinkLost as lost:
            self._link.abort()
            raise _HandshakeFailed(lost) from lost

    async def _authenticate(self, extensions: Extensions, user: str, password: str, *, inside_tls: bool) -> None:
        if not inside_tls:
            self._unusable("credentials are sent inside TLS only, and there is none")
        if "PLAIN" in extensions.auth:
            steps = [b"AUTH PLAIN " + _base64(f"\0{user}\0{password}")]
        elif "LOGIN" in extensions.auth:
            steps = [b"AUTH LOGIN", _base64(user), _base64(password)]
        else:
            self._unusable("next hop offers neither AUTH PLAIN nor AUTH LOGIN")
        for step in steps[:-1]:
            reply = await self._ask(step + b"\r\n")
            if reply.code != 334:
                self._unusable("authentication failed", reply.decoded())
        reply = await self._ask(steps[-1] + b"\r\n")
        if reply.code != 235:
            self._unusable("authentication failed", reply.decoded())


async def say_quit(link: Link, timeout_s: float = 5.0) -> None:
    """QUIT, a short wait for its reply, and close. Never raises but CancelledError; the connection is closed in any case."""
    try:
        link.write(b"QUIT\r\n")
        await link.reply(timeout_s)
        await link.close(1.0)
    except LinkLost:
        pass  # it is closed, which is what was wanted
    finally:
        link.abort()


def _base64(text: str) -> bytes:
    return base64.b64encode(text.encode("utf-8"))


@functools.cache
def _tls_context(*, verify: bool) -> ssl.SSLContext:
    """TLS 1.2 or later. With `verify`, against the system's certificate authorities (SSL_CERT_FILE replaces them)."""
    if verify:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
