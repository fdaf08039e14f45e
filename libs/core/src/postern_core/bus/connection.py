"""One connection to the broker, and the four things a service does with it: publish, read one message, request, delete.

Reconnects for ever. While the broker is away a publish fails at once (nothing is buffered that could surface later as a ghost of
a message that was refused). Should the client give up all the same, `closed` is set, and the service ends so that it is restarted.
A publish answered *duplicate* counts as stored when the answer names the sequence number of the stored one. Reading it back would prove
no more: a gate may not read mail, and from a work queue it may have been handed on already (docs/reference/bus.md).
Sources: nats-py 2.16 client; docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import nats
import nats.errors
import structlog
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js.client import JetStreamContext

from postern_core.broker.names import inbox_prefix
from postern_core.bus.broker_check import CannotBeAskedError, confirm_broker
from postern_core.bus.client import Client, credentials
from postern_core.bus.publishing import IN_PROCESS, PubAck, decode_pub_reply, refusal, unavailable
from postern_core.bus.window import HOLDING_MAIL, Window, reads_at_once
from postern_core.errors import ConfigurationError
from postern_core.settings import DEFAULT_INLINE_LIMIT_BYTES, BusSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger()

PUBLISH_DEADLINE_S: Final = 10.0
_TRY_TIMEOUT_S: Final = 3.0
_READ_TIMEOUT_S: Final = 5.0
_RETRY_PAUSE_S: Final = 0.1
_RECONNECT_PAUSE_S: Final = 1  # whole seconds are all that the client's signatures allow for these three
_CONNECT_TIMEOUT_S: Final = 2
_PING_EVERY_S: Final = 10


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a stream holds it."""

    subject: str
    sequence: int
    data: bytes
    at: datetime  # when it was stored


class Bus:
    """See the module. Build it with `connect`."""

    def __init__(self, client: Client, *, inline_limit_bytes: int = DEFAULT_INLINE_LIMIT_BYTES) -> None:
        self.client = client
        self.window = Window()
        self._reading = asyncio.Semaphore(reads_at_once(inline_limit_bytes))  # from streams that hold mail
        self.jetstream: JetStreamContext = client.jetstream(timeout=_READ_TIMEOUT_S)
        self.closed = asyncio.Event()
        self.checking: asyncio.Task[None] | None = None  # of the broker, after a reconnect
        self.on_reconnect: set[Callable[[], None]] = set()  # called when the connection stands again, subscriptions included

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    async def publish(
        self, stream: str, subject: str, payload: bytes | memoryview, msg_id: str, *, deadline_s: float = PUBLISH_DEADLINE_S
    ) -> PubAck:
        """Store `payload` in `stream`; returns after the broker's acknowledgement.

        While the outcome of a try is unknown (no answer, or still on its way to the replicas) it is tried again with the same `msg_id`
        until the deadline, also when the broker is away meanwhile, so that a first try that was stored all the same is recognised.
        Raises TransientError: 452 4.3.1 when there is no room, 451 4.3.0 for anything else; SubjectTakenError, one of those, where a
        stream keeps one message for each subject and has another.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        headers = {"Nats-Msg-Id": msg_id, "Nats-Expected-Stream": stream}
        unknown = False  # whether an earlier try may have been stored
        while True:
            left = deadline - loop.time()
            try:
                answer = await self.client.request(
                    subject, payload, timeout=max(min(_TRY_TIMEOUT_S, left), 0.05), headers=headers
                )
            except nats.errors.MaxPayloadError as error:
                raise unavailable(f"payload of {len(payload)} bytes is over the broker's max_payload") from error
            except nats.errors.NoRespondersError as error:
                # also for a moment after a restart, until the stream has recovered
                if left <= _RETRY_PAUSE_S:
                    raise unavailable(f"no stream takes {subject}") from error
            except (nats.errors.TimeoutError, TimeoutError) as error:
                unknown = True
                if loop.time() >= deadline:
                    raise unavailable(f"no acknowledgement from {stream} within {deadline_s:g} s") from error
                continue
            except (nats.errors.Error, OSError) as error:
                if not unknown or self.client.is_closed or left <= _RETRY_PAUSE_S:
                    raise unavailable(f"publish to {stream} failed: {type(error).__name__}: {error}") from error
            else:
                reply = decode_pub_reply(answer.data)
                if reply.error is None and reply.stream != stream:
                    raise unavailable(f"{subject} was stored in {reply.stream!r} instead of {stream!r}")
                if reply.error is None and reply.seq > 0:
                    return PubAck(reply.stream, reply.seq, reply.duplicate)
                # a duplicate without a sequence number is of something that is not stored yet, and may never be
                may_yet_be_stored = reply.error is None or reply.error.err_code == IN_PROCESS
                if not may_yet_be_stored or left <= _RETRY_PAUSE_S:
                    raise refusal(stream, reply.error)
                unknown = True
            await asyncio.sleep(_RETRY_PAUSE_S)

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The newest message on `subject` in `stream`, or None. TransientError 451 4.3.0 when the broker does not answer."""
        return await self._direct_get(stream, f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")

    async def at(self, stream: str, sequence: int) -> Stored | None:
        """The message with this sequence number in `stream`, or None."""
        return await self._direct_get(stream, f"$JS.API.DIRECT.GET.{stream}", json.dumps({"seq": sequence}).encode())

    async def next_on(self, stream: str, subject_filter: str, from_sequence: int) -> Stored | None:
        """The first message at or after `from_sequence` whose subject matches, or None: for walking a stream without a consumer."""
        query = json.dumps({"seq": from_sequence, "next_by_subj": subject_filter}).encode()
        return await self._direct_get(stream, f"$JS.API.DIRECT.GET.{stream}", query)

    async def delete(self, stream: str, sequence: int) -> bool:
        """Delete one message; False when it was gone already."""
        answer = await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True}, tolerate_error=True)
        return bool(answer.get("success"))

    async def purge(self, stream: str, subject_filter: str) -> int:
        """Delete every message of `stream` whose subject matches; returns how many."""
        answer = await self.api(f"STREAM.PURGE.{stream}", {"filter": subject_filter})
        return int(answer.get("purged", 0))

    async def subjects(self, stream: str, subject_filter: str, *, offset: int = 0) -> dict[str, int]:
        """Subjects of `stream` that match, with their message counts: a page (the broker caps it at 100,000)."""
        answer = await self.api(f"STREAM.INFO.{stream}", {"subjects_filter": subject_filter, "offset": offset})
        return answer.get("state", {}).get("subjects") or {}

    async def stream_state(self, stream: str) -> dict[str, Any]:
        """`messages`, `bytes`, `first_seq`, `first_ts`, `last_seq`, `consumer_count` … of a stream."""
        answer = await self.api(f"STREAM.INFO.{stream}", {})
        state: dict[str, Any] = answer["state"]
        return state

    async def consumer_info(self, stream: str, consumer: str) -> dict[str, Any]:
        """`num_pending`, `num_ack_pending`, `delivered`, `ack_floor` … of a consumer."""
        return await self.api(f"CONSUMER.INFO.{stream}.{consumer}", {})

    async def consumer_names(self, stream: str) -> list[str]:
        answer = await self.api(f"CONSUMER.NAMES.{stream}", {})
        return list(answer.get("consumers") or ())

    async def api(self, call: str, request: dict[str, Any], *, tolerate_error: bool = False) -> dict[str, Any]:
        """One JetStream API call; TransientError 451 4.3.0 when it fails."""
        try:
            answer = await self.client.request(f"$JS.API.{call}", json.dumps(request).encode(), timeout=_READ_TIMEOUT_S)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise unavailable(f"{call}: {type(error).__name__}: {error}") from error
        decoded: dict[str, Any] = json.loads(answer.data)
        if "error" in decoded and not tolerate_error:
            raise unavailable(f"{call}: {decoded['error'].get('description', decoded['error'])}")
        return decoded

    async def kv_get(self, bucket: str, key: str) -> bytes | None:
        """The value of a key, None when there is none (or it was deleted, which stores an empty value)."""
        stored = await self.last(f"KV_{bucket}", f"$KV.{bucket}.{key}")
        return stored.data or None if stored else None

    async def kv_put(self, bucket: str, key: str, value: bytes) -> int:
        """Store a value, durably; returns its bucket revision. An empty value deletes."""
        try:
            answer = await self.client.request(f"$KV.{bucket}.{key}", value, timeout=_READ_TIMEOUT_S)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise unavailable(f"bucket {bucket}: {type(error).__name__}: {error}") from error
        reply = decode_pub_reply(answer.data)
        if reply.error is not None:
            raise unavailable(f"bucket {bucket}: {reply.error.description}")
        return reply.seq

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """One plain request to another service. TransientError 451 4.3.0 when nobody answers in time."""
        try:
            answer = await self.client.request(subject, payload, timeout=timeout_s)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise unavailable(f"{subject}: {type(error).__name__}: {error}") from error
        return answer.data

    async def close(self) -> None:
        """Send what is written, then close."""
        if self.checking is not None:
            self.checking.cancel()
        for step, timeout_s in ((self._flushed, 1), (self.client.close, 2)):  # a broker that does not answer is left all the same
            try:
                async with asyncio.timeout(timeout_s):
                    await step()
            except (nats.errors.Error, OSError, TimeoutError) as error:
                log.warning("bus.close_failed", reason=f"{type(error).__name__}: {error}")

    async def _flushed(self) -> None:
        if self.client.is_connected:
            await self.client.flush()

    async def _direct_get(self, stream: str, api_subject: str, query: bytes) -> Stored | None:
        if stream not in HOLDING_MAIL:
            return await self._get(stream, api_subject, query)
        async with self._reading:
            return await self._get(stream, api_subject, query)

    async def _get(self, stream: str, api_subject: str, query: bytes) -> Stored | None:
        try:
            answer: Msg = await self.client.request(api_subject, query, timeout=_READ_TIMEOUT_S)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise unavailable(f"reading {stream}: {type(error).__name__}: {error}") from error
        status = header(answer, "Status")
        if status == "404":
            return None
        if status:
            raise unavailable(f"reading {stream}: {status} {header(answer, 'Description')}")
        return Stored(header(answer, "Nats-Subject"), int(header(answer, "Nats-Sequence")), answer.data, _stored_at(answer))


def header(msg: Msg, name: str) -> str:
    """The first value of a header of `msg`, "" when it has none (the client gives text or a list, depending on the message)."""
    value: str | list[str] = (msg.headers or {}).get(name, "")
    return value if isinstance(value, str) else value[0]


def _stored_at(msg: Msg) -> datetime:
    # RFC 3339 with nanoseconds, of which datetime takes six digits
    text, _, fraction = header(msg, "Nats-Time-Stamp").removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{text}.{fraction[:6].ljust(6, '0')}+00:00")


async def connect(settings: BusSettings, service: str) -> Bus:
    """Connect, and refuse a broker that does not sync before it acknowledges.

    Waits for a broker that is not there yet. ConfigurationError when the broker is too old, or its sync setting is wrong or cannot be
    confirmed (unless the settings allow that), or when a setting cannot be used.
    """
    client = Client()
    bus = Bus(client, inline_limit_bytes=settings.inline_limit_bytes)

    async def on_error(error: Exception) -> None:
        log.warning("bus.error_reported", reason=f"{type(error).__name__}: {error}")

    async def on_disconnect() -> None:
        if not client.is_closed:
            log.warning("bus.disconnected")

    async def on_reconnect() -> None:
        log.info("bus.reconnected", server=client.connected_url.netloc if client.connected_url else "")
        bus.checking = asyncio.create_task(_confirm_again(settings, client), name="confirm-broker")
        for call in tuple(bus.on_reconnect):
            call()

    async def on_close() -> None:
        bus.closed.set()

    password, tls = credentials(settings)
    try:
        await client.connect(
            servers=[url.strip() for url in settings.nats_url.split(",")],
            name=f"postern-{service}/{settings.instance}",
            user=settings.nats_user or None,
            password=password,
            tls=tls,
            error_cb=on_error,
            disconnected_cb=on_disconnect,
            reconnected_cb=on_reconnect,
            closed_cb=on_close,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_PAUSE_S,
            connect_timeout=_CONNECT_TIMEOUT_S,
            ping_interval=_PING_EVERY_S,
            max_outstanding_pings=2,
            pending_size=-1,
            inbox_prefix=inbox_prefix(service),
        )
    except nats.errors.Error as error:
        # a broker that is away, or does not let us in, is tried again for ever: what is raised is about the address itself
        raise ConfigurationError(f"POSTERN_NATS_URL cannot be used: {error}") from error
    bus.closed.clear()
    try:
        await confirm_broker(settings, client)
    except ConfigurationError:
        await bus.close()
        raise
    return bus


async def _confirm_again(settings: BusSettings, client: NatsClient) -> None:
    """After a reconnect the broker may be another, or have another configuration: a wrong one is left, which ends the service."""
    try:
        await confirm_broker(settings, client)
    except CannotBeAskedError as error:
        log.warning("broker.sync_unconfirmed", reason=str(error))  # it was right before
    except ConfigurationError as error:
        log.error("broker.refused", reason=str(error))
        await client.close()
