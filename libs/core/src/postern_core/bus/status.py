"""Tells every few seconds how an instance is (KV STATUS), so that the api can say `revision 42: live on 5 of 5 replicas`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from postern_core.bus.connection import Bus
from postern_core.bus.topology import KV_STATUS
from postern_core.control import ServiceStatus
from postern_core.errors import TransientError
from postern_core.healthcheck import mark_ready

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_EVERY_S: Final = 5.0


class StatusReporter:
    """Publishes `probe()`'s view. `probe` returns the fields that change; `poke` sends a report at once (a new revision, say)."""

    def __init__(
        self, bus: Bus, service: str, instance: str, probe: Callable[[], dict[str, object]], *, ready_file: Path | None = None
    ) -> None:
        self._bus = bus
        self._service = service
        self._instance = instance_token(instance)
        self._probe = probe
        self._ready_file = ready_file
        self._started_at = datetime.now(UTC)
        self._poked = asyncio.Event()
        self._failing = False
        self.problem = ""  # why the broker did not store the last report, although it is there

    def poke(self) -> None:
        self._poked.set()

    async def run(self, stop: asyncio.Event) -> None:
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._poked.set())
        try:
            while not stop.is_set():
                self._poked.clear()
                await self._report()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY_S):
                        await self._poked.wait()
        finally:
            stopped.cancel()

    async def _report(self) -> None:
        fields: dict[str, object] = {
            "service": self._service,
            "instance": self._instance,
            "started_at": self._started_at,
            "at": datetime.now(UTC),
            "pid": os.getpid(),
        } | self._probe()
        status = msgspec.convert(fields, ServiceStatus)
        if self._ready_file is not None:
            mark_ready(self._ready_file, ready=status.ready and self._bus.connected, detail=status.detail)
        try:
            await self._bus.kv_put(KV_STATUS, f"{self._service}.{self._instance}", msgspec.json.encode(status))
        except TransientError as error:
            # once: while the broker is away this goes on every few seconds
            (log.debug if self._failing else log.warning)("status.report_failed", reason=error.reason)
            self._failing = True
            self.problem = error.reason if self._bus.connected else ""
        else:
            self._failing = False
            self.problem = ""


def instance_token(instance: str) -> str:
    """An instance's name as it stands in subjects and reports."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in instance)
