"""The last report of each instance (KV STATUS): read once at start, then told of by plain publish."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import structlog
from nats.aio.msg import Msg

from postern_core.bus import Bus
from postern_core.bus.topology import KV_STATUS
from postern_core.control import ServiceStatus
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

FRESH: Final = timedelta(seconds=20)  # instances report every 5 s
_FORGET: Final = timedelta(seconds=60)  # as the bucket does
_PREFIX: Final = f"$KV.{KV_STATUS}."


class StatusBoard:
    """Instances that were heard of within the last minute."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._reports: dict[tuple[str, str], ServiceStatus] = {}

    async def run(self, stop: asyncio.Event) -> None:
        subscription = await self._bus.client.subscribe("status.changed.*.*", cb=self._told)
        try:
            while not stop.is_set():
                try:
                    await self._read_all()
                    break
                except TransientError as error:
                    log.warning("status.read_failed", reason=error.reason)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), 5)
            await stop.wait()
        finally:
            if self._bus.connected:
                await subscription.unsubscribe()

    def reports(self, now: datetime) -> list[ServiceStatus]:
        """By service and instance; those that fell silent a minute ago are forgotten."""
        for key in [key for key, report in self._reports.items() if now - report.at > _FORGET]:
            del self._reports[key]
        return [self._reports[key] for key in sorted(self._reports)]

    async def _read_all(self) -> None:
        for subject in await self._bus.subjects(f"KV_{KV_STATUS}", f"{_PREFIX}>"):
            value = await self._bus.kv_get(KV_STATUS, subject.removeprefix(_PREFIX))
            if value is not None:
                self._take(value)

    async def _told(self, msg: Msg) -> None:
        if msg.data:
            self._take(msg.data)

    def _take(self, value: bytes) -> None:
        try:
            report = msgspec.json.decode(value, type=ServiceStatus)
        except msgspec.DecodeError as error:
            log.warning("status.unreadable", reason=str(error))
            return
        if report.at.tzinfo is None:
            log.warning("status.unreadable", reason="its time has no zone")
            return
        key = (report.service, report.instance)
        known = self._reports.get(key)
        if known is None or known.at <= report.at:
            self._reports[key] = report


def is_fresh(report: ServiceStatus) -> bool:
    """Whether the instance has reported lately."""
    return datetime.now(UTC) - report.at <= FRESH
