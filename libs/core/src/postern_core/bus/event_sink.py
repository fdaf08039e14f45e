"""Sends trace events in batches, after the fact. Never in the way of mail: when the bus is away or slow, the oldest are dropped and counted."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from postern_core.bus.connection import Bus
from postern_core.bus.topology import EVENTS, event_subject
from postern_core.errors import TransientError
from postern_core.events import EventBatch, EventKind, TraceEvent
from postern_core.ids import QueueId
from postern_core.verdict import Verdict

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_COLLECT_S: Final = 0.2
_BATCH: Final = 500
_KEEP: Final = 50_000
_MOST_OCTETS: Final = 2 * 1024 * 1024  # of a batch


class EventSink:
    """Collects events for `_COLLECT_S` seconds and publishes them as one message."""

    def __init__(self, bus: Bus, service: str) -> None:
        self._bus = bus
        self._service = service
        self._waiting: deque[TraceEvent] = deque()
        self._arrived = asyncio.Event()
        self._published = 0
        self._batch = _BATCH
        self.dropped = 0

    def tell(
        self, queue_id: QueueId, kind: EventKind, *, verdict: Verdict | None = None, **fields: str | int | float | bool
    ) -> None:
        """Note one step of one message; returns at once."""
        if len(self._waiting) >= _KEEP:
            self._waiting.popleft()
            self.dropped += 1
        event = TraceEvent(id=queue_id, kind=kind, at=datetime.now(UTC), service=self._service, fields=fields, verdict=verdict)
        self._waiting.append(event)
        self._arrived.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`, then publish what is left once."""
        while not stop.is_set():
            await self._wait(stop)
            await self._publish_waiting()
        await self._publish_waiting()

    async def _wait(self, stop: asyncio.Event) -> None:
        if not self._waiting:
            self._arrived.clear()
            waits = [asyncio.ensure_future(self._arrived.wait()), asyncio.ensure_future(stop.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if not stop.is_set():
            await asyncio.sleep(_COLLECT_S)

    async def _publish_waiting(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            payload = msgspec.json.encode(EventBatch(events=tuple(batch)))
            if len(payload) > _MOST_OCTETS and len(batch) > 1:
                # verdicts of which each has much to say: the broker would refuse it, again and again
                self._waiting.extendleft(reversed(batch))
                self._batch = len(batch) // 2
                continue
            self._batch = _BATCH
            self._published += 1
            # ids are unique to this batch: the first event's id and time, and a running number
            msg_id = f"{self._service}:{batch[0].id}:{batch[0].at.timestamp()}:{self._published}"
            try:
                await self._bus.publish(EVENTS, event_subject(self._service, "trace"), payload, msg_id, deadline_s=3)
            except TransientError as error:
                self._waiting.extendleft(reversed(batch))
                log.warning("events.publish_failed", waiting=len(self._waiting), reason=error.reason)
                await asyncio.sleep(1)
                return
