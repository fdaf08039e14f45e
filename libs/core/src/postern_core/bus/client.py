"""The NATS client as the services use it, and what it needs to get in.

Connecting, reconnecting, TLS and the protocol's rare words are the library's. What happens for each message is ours, because the library's
general way (a queue and a task for each subscription, two random names and a time-out task for each request, a copy of every header)
cost a tenth of what all services spent on a message (docs/performance.md):
    requests   one subscription for all answers, told apart by a number; the time-out is a timer of the loop
    listeners  called as soon as a message is read, without a queue between
    writes     collected until the loop comes round, then handed to the socket in one call
    reading    from the socket into one buffer, out of which messages are cut without regular expressions (receiver.py)
`tests/test_client.py` holds both halves together, against a real broker.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from postern_core.bus.receiver import MalformedError, Receiver
from postern_core.errors import ConfigurationError
from postern_core.settings import BusSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger()

Listener = Callable[[Msg], None]

_CRLF: Final = b"\r\n"
_HEADER_LINE: Final = b"NATS/1.0"
_STATUS, _DESCRIPTION = "Status", "Description"
_NO_RESPONDERS: Final = "503"
_JOINED_OCTETS: Final = 16 * 1024  # a smaller payload is copied behind its command: cheaper than one more buffer for the kernel


class Client(NatsClient):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: dict[int, Listener] = {}  # by subscription id
        self._answers: dict[str, asyncio.Future[Msg]] = {}  # by the subject that an answer comes to
        self._answers_to = ""
        self._numbers = itertools.count()
        self._is_flush_due = False

    async def connect(self, *arguments: Any, **options: Any) -> None:
        await super().connect(*arguments, **options)
        self._answers_to = f"{self.new_inbox()}."
        await self.listen(f"{self._answers_to}*", self._answered)

    async def listen(self, subject: str, listener: Listener) -> Subscription:
        """Subscribe; `listener` is called for each message, in the order in which they come, and must not block."""
        sid = self._sid + 1  # the next one, which `subscribe` takes before it waits for anything
        self._listeners[sid] = listener
        return await self.subscribe(subject)

    async def publish(
        self, subject: str, payload: bytes | memoryview = b"", reply: str = "", headers: dict[str, Any] | None = None
    ) -> None:
        """Send a message. OutboundBufferLimitError while disconnected, MaxPayloadError when it is too large: nothing is kept for later."""
        if not subject or _has_blank(subject) or _has_blank(reply):
            raise nats.errors.BadSubjectError
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        if not self.is_connected:
            raise nats.errors.OutboundBufferLimitError
        block = _header_block(headers) if headers else b""
        size = len(block) + len(payload)
        if size > self._max_payload:  # the broker counts headers, too, and hangs up on a client that does not
            raise nats.errors.MaxPayloadError
        if block:
            command = b"HPUB %b %b %d %d\r\n%b" % (subject.encode(), reply.encode(), len(block), size, block)
        else:
            command = b"PUB %b %b %d\r\n" % (subject.encode(), reply.encode(), size)
        if size < _JOINED_OCTETS:
            self._pending.append(b"".join((command, payload, _CRLF)))
        else:
            self._pending += cast("tuple[bytes, ...]", (command, payload, _CRLF))
        self._pending_data_size += len(command) + len(payload) + len(_CRLF)
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(payload)
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        if not pending or not self.is_connected or self._transport is None:
            return  # kept, it would go out after the reconnect, when its caller has long given up on it
        try:
            self._transport.writelines(pending)
        except (OSError, RuntimeError):
            return  # the connection has just ended, which the reader finds out: what was asked stays without an answer

    async def request(
        self,
        subject: str,
        payload: bytes | memoryview = b"",
        timeout: float = 0.5,
        old_style: bool = False,  # noqa: ARG002  (the library's)
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """Send a message and wait for one answer, `timeout` seconds at most. TimeoutError; NoRespondersError when nobody listens."""
        loop = asyncio.get_running_loop()
        answer_to = f"{self._answers_to}{next(self._numbers)}"
        future: asyncio.Future[Msg] = loop.create_future()
        self._answers[answer_to] = future
        timer = loop.call_later(timeout, _expire, future)
        try:
            await self.publish(subject, payload, answer_to, headers)
            msg = await future
        finally:
            timer.cancel()
            del self._answers[answer_to]
        if msg.headers and msg.headers.get(_STATUS) == _NO_RESPONDERS:
            raise nats.errors.NoRespondersError
        return msg

    def _answered(self, msg: Msg) -> None:
        future = self._answers.get(msg.subject)
        if future is not None and not future.done():
            future.set_result(msg)

    async def _read_loop(self) -> None:
        """The library's, by way of our receiver: this takes what is rare, and the end of the connection."""
        writer: asyncio.StreamWriter = getattr(self._transport, "_io_writer")  # noqa: B009  (the library's abstract transport does not show it)
        rare: asyncio.Queue[_Rare] = asyncio.Queue()
        receiver = Receiver(
            writer.transport.get_protocol(),
            on_message=functools.partial(self._received, rare),
            on_word=rare.put_nowait,
            on_end=lambda fault: rare.put_nowait(_Ended(fault)),
        )
        try:
            await self._take_over(cast("asyncio.Transport", writer.transport), receiver)
            while not (self.is_closed or self.is_reconnecting):
                word = await rare.get()
                if isinstance(word, _Ended):
                    await self._lost(word.fault)
                    return
                await self._handle_rare(word)
        except nats.errors.ProtocolError as error:
            await self._process_op_err(error)
        except asyncio.CancelledError:
            pass  # as the library does: whoever cancelled it goes on alone
        finally:
            receiver.leave()

    async def _take_over(self, transport: asyncio.Transport, receiver: Receiver) -> None:
        transport.pause_reading()  # the loop looks at what kind of protocol it has when reading begins
        transport.set_protocol(receiver)
        reader: asyncio.StreamReader = getattr(self._transport, "_io_reader")  # noqa: B009
        reader.feed_eof()
        receiver.feed(await reader.read())
        transport.resume_reading()

    async def _lost(self, fault: Exception | None) -> None:
        if isinstance(fault, MalformedError):
            log.error("bus.malformed", reason=str(fault))
            await self._process_op_err(nats.errors.ProtocolError())
        elif isinstance(fault, OSError):
            await self._process_op_err(fault)
        else:
            error = nats.errors.UnexpectedEOF()
            await self._error_cb(error)
            await self._process_op_err(error)

    async def _handle_rare(self, word: bytes | _ForLibrary | Exception) -> None:
        if isinstance(word, bytes):
            await self._ps.parse(word)
        elif isinstance(word, tuple):
            await self._process_msg(*word)
        else:  # it is logged, and the connection goes on being read
            await self._error_cb(word)

    def _received(
        self, rare: asyncio.Queue[_Rare], sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        listener = self._listeners.get(sid)
        if listener is None:
            rare.put_nowait((sid, subject, reply, data, headers or b""))
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        try:
            fields = self._fields(headers) if headers else None
            listener(Msg(self, subject.decode(), reply.decode(), data, fields))
        except Exception as error:  # whatever it is, the next message is somebody else's
            rare.put_nowait(error)

    def _fields(self, block: bytes) -> dict[str, str]:
        line, _, rest = block.partition(_CRLF)
        fields = _header_fields(rest)
        status, _, description = line[len(_HEADER_LINE) :].strip().partition(b" ")
        if status:
            fields |= {_STATUS: status.decode(), _DESCRIPTION: description.decode()}
        return fields

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """The library writes its ping past what is collected: the pong would come before that was read, and a subscription that is drained
        would be forgotten here while the broker still sends to it."""
        self._flush()
        await super()._send_ping(future)

    async def _attempt_reconnect(self) -> None:
        """The library waits until what was written has gone out, which a server that hangs, or is cut off, never lets it: it then did not get on to
        another. None of it is wanted any more."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        await super()._attempt_reconnect()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self._flush()  # what its caller was told is sent; the library marks the connection as closed before it looks
        await super()._close(status, do_cbs)

    async def _process_pong(self) -> None:
        """A flush that timed out leaves its cancelled future behind. The library sets a result on it when the pong comes after all, which
        raises, and that ends the task that reads the connection: the service then hears nothing until the keep-alive gives up on it."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._listeners.pop(sid, None)
        super()._remove_sub(sid, max_msgs)


@dataclass(frozen=True, slots=True)
class _Ended:
    """Nothing more comes on this connection."""

    fault: Exception | None


_ForLibrary = tuple[int, bytes, bytes, bytes, bytes]  # a message for a subscription that has no listener
_Rare = bytes | _ForLibrary | Exception | _Ended  # a line of the protocol, that, a listener's fault, the end


def _expire(future: asyncio.Future[Msg]) -> None:
    if not future.done():
        future.set_exception(nats.errors.TimeoutError())


def _has_blank(text: str) -> bool:
    return " " in text or "\n" in text or "\r" in text or "\t" in text


def _header_block(headers: dict[str, Any]) -> bytes:
    """The library reads values as lists and cannot write those: both are taken here, so that a request that has headers can be answered."""
    lines = [
        f"{name}: {(value if isinstance(value, str) else value[0]).translate(_NO_LINE_END)}\r\n"
        for name, value in headers.items()
    ]
    return f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()


def _header_fields(lines: bytes) -> dict[str, str]:
    """As the library reads them: a name that is not ASCII, or has a blank in it, is passed over."""
    fields = {}
    for line in lines.split(_CRLF):
        name, colon, value = line.partition(b":")
        if colon and name.isascii() and len(words := name.split()) == 1:
            fields[words[0].decode()] = value.strip().decode("utf-8", "replace")
    return fields


_NO_LINE_END: Final = {ord("\r"): " ", ord("\n"): " "}


def credentials(settings: BusSettings) -> tuple[str | None, ssl.SSLContext | None]:
    """Password and TLS context. ConfigurationError when a file cannot be used."""
    try:
        password = settings.nats_password()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"POSTERN_NATS_PASSWORD_FILE cannot be read: {error}") from error
    tls = None
    if settings.nats_ca_file is not None:
        try:
            tls = ssl.create_default_context(cafile=str(settings.nats_ca_file))
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(f"POSTERN_NATS_CA_FILE holds no CA certificates: {error}") from error
    return password.get_secret_value() if password else None, tls
