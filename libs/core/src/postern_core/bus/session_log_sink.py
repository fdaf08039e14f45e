"""Sends the session log in batches, after the fact. Never in the way of mail: what comes faster than it can be told is dropped and counted."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from postern_core.bus.connection import Bus
from postern_core.bus.topology import EVENTS, event_subject
from postern_core.envelope import Gate
from postern_core.errors import TransientError
from postern_core.session_log import SessionBatch, SessionRecord

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_EVERY_S: Final = 1.0
_BATCH: Final = 1000
_MOST: Final = 10_000  # waiting: some megabytes


class SessionLogSink:
    """`dropped` counts records that could not be told."""

    def __init__(self, bus: Bus, service: str, instance: str, gate: Gate) -> None:
        self._bus = bus
        self._service = service
        self._instance = instance
        self._gate = gate
        self._waiting: list[SessionRecord] = []
        self._started = datetime.now(UTC).timestamp()
        self._published = 0
        self._untold = 0  # of those dropped
        self.dropped = 0

    def tell(self, record: SessionRecord) -> None:
        """Take one record; returns at once."""
        if len(self._waiting) < _MOST:
            self._waiting.append(record)
        else:
            self.dropped += 1
            self._untold += 1

    async def run(self, stop: asyncio.Event) -> None:
        """Publish once a second until `stop`, then what is left once."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _EVERY_S)
            await self._publish()
        await self._publish()

    async def _publish(self) -> None:
        while self._waiting:
            batch, dropped = self._waiting[:_BATCH], self._untold
            self._published += 1
            payload = msgspec.json.encode(
                SessionBatch(gate=self._gate, instance=self._instance, records=tuple(batch), dropped=dropped)
            )
            # unique to this batch, also among replicas of one name
            msg_id = f"{self._service}:{self._instance}:session:{self._started}:{batch[0].session}:{self._published}"
            try:
                await self._bus.publish(EVENTS, event_subject(self._service, "session"), payload, msg_id, deadline_s=3)
            except TransientError as error:  # they stay, as far as there is room
                log.warning("session_log.publish_failed", waiting=len(self._waiting), dropped=self.dropped, reason=error.reason)
                return
            del self._waiting[: len(batch)]
            self._untold -= dropped
            if dropped:
                log.warning("session_log.dropped", records=dropped)
