"""Tells notices: those of a kind about the same go out as one with a count, once a second. Never in the way of mail."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from postern_core.bus.connection import Bus
from postern_core.bus.topology import EVENTS, event_subject
from postern_core.errors import TransientError
from postern_core.notices import Notice, NoticeBatch, NoticeKind

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_EVERY_S: Final = 1.0
_MOST: Final = 1000  # kinds and subjects in one interval; what comes on top is counted under its kind alone


class NoticeSink:
    """`dropped` counts what happened and could not be told."""

    def __init__(self, bus: Bus, service: str, instance: str) -> None:
        self._bus = bus
        self._service = service
        self._instance = instance
        self._waiting: dict[tuple[NoticeKind, str], Notice] = {}
        self._published = 0
        self.dropped = 0

    def tell(self, kind: NoticeKind, about: str, **fields: str | int | float | bool) -> None:
        """Note that it happened once more; returns at once. `about` and `fields` hold no content and no secret."""
        key = (kind, about)
        if key not in self._waiting and len(self._waiting) >= _MOST:
            key = (kind, "")
        known = self._waiting.get(key)
        if known is None:
            self._waiting[key] = Notice(
                kind=kind, about=key[1], at=datetime.now(UTC), service=self._service, instance=self._instance, fields=fields
            )
        else:
            self._waiting[key] = msgspec.structs.replace(known, count=known.count + 1)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`, then publish what is left once."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _EVERY_S)
            await self._publish()
        await self._publish()

    async def _publish(self) -> None:
        if not self._waiting:
            return
        notices, self._waiting = tuple(self._waiting.values()), {}
        self._published += 1
        msg_id = f"{self._service}:{self._instance}:notice:{notices[0].at.timestamp()}:{self._published}"
        payload = msgspec.json.encode(NoticeBatch(notices=notices))
        try:
            await self._bus.publish(EVENTS, event_subject(self._service, "notice"), payload, msg_id, deadline_s=3)
        except TransientError as error:
            lost = sum(notice.count for notice in notices)
            self.dropped += lost
            log.warning("notices.publish_failed", lost=lost, reason=error.reason)
