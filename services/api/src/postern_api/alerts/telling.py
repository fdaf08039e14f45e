"""Tells the bus of each raise, after the fact: while the broker is away, the newest are kept, and told when it is there again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final

import msgspec
import structlog

from postern_core.alerts import AlertRaised
from postern_core.bus import Bus
from postern_core.bus.topology import EVENTS, event_subject
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

KIND: Final = "alert"  # last token of the subject
_KEPT: Final = 1000
_PAUSE_S: Final = 2.0


class AlertTeller:
    """`tell` returns at once."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: deque[AlertRaised] = deque(maxlen=_KEPT)
        self._arrived = asyncio.Event()

    def tell(self, raised: AlertRaised) -> None:
        self._waiting.append(raised)
        self._arrived.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, then once more."""
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._arrived.set())
        try:
            while not stop.is_set():
                self._arrived.clear()
                if not await self._publish():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_PAUSE_S):
                            await stop.wait()
                    continue
                await self._arrived.wait()
            await self._publish()
        finally:
            stopped.cancel()

    async def _publish(self) -> bool:
        """False when some are left."""
        while self._waiting:
            raised = self._waiting[0]
            msg_id = f"alert:{raised.kind}:{raised.at.timestamp()}:{raised.count}"
            try:
                await self._bus.publish(EVENTS, event_subject("api", KIND), msgspec.json.encode(raised), msg_id, deadline_s=3)
            except TransientError as error:
                log.warning("alerts.not_told", waiting=len(self._waiting), reason=error.reason)
                return False
            if self._waiting and self._waiting[0] is raised:
                self._waiting.popleft()
        return True
