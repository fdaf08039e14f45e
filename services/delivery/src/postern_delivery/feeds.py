"""Pulls from OUTBOUND: one consumer for each route, each with its own share of work, so that a slow route holds up no other.

Consumers are made by the control plane and never deleted. That of a route which has left the policy is pulled all the same: its jobs take
the routes that their recipients' domains take now.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from postern_core.bus import Bus, Consumer
from postern_core.bus.consumer import Handler
from postern_core.bus.topology import OUTBOUND, delivery_consumer
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_REFRESH_S: Final = 30.0
_AGAIN_S: Final = 1.0  # after the list could not be read
_KEEP_EVERY_S: Final = 3.0  # under the shortest ack-wait that may be set


class Feeds:
    """See the module. `keep_for_s` bounds how long one job may be worked on."""

    def __init__(self, bus: Bus, handler: Handler, *, concurrency: int, keep_for_s: float) -> None:
        self._bus = bus
        self._handler = handler
        self._concurrency = concurrency
        self._keep_for_s = keep_for_s
        self._consumers: dict[str, Consumer] = {}
        self._wake = asyncio.Event()

    @property
    def in_flight(self) -> int:
        return sum(consumer.in_flight for consumer in self._consumers.values())

    def poke(self) -> None:
        """The policy has changed: there may be a new route."""
        self._wake.set()

    async def run(self, stop: asyncio.Event, drain_s: float) -> None:
        """Pull until `stop`; then finish what is in hand, for at most `drain_s` seconds, and hand back the rest."""
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        try:
            async with asyncio.TaskGroup() as tasks:
                while not stop.is_set():
                    self._wake.clear()
                    pause = await self._refresh(tasks, stop, drain_s)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._wake.wait()
        finally:
            stopped.cancel()

    async def _refresh(self, tasks: asyncio.TaskGroup, stop: asyncio.Event, drain_s: float) -> float:
        try:
            names = await self._bus.consumer_names(OUTBOUND)
        except TransientError as error:
            log.warning("routes.not_listed", reason=error.reason)
            return _AGAIN_S
        for name in names:
            if name in self._consumers or not name.startswith(delivery_consumer("")):
                continue
            consumer = Consumer(
                self._bus,
                OUTBOUND,
                name,
                self._handler,
                concurrency=self._concurrency,
                keep_every_s=_KEEP_EVERY_S,
                keep_for_s=self._keep_for_s,
            )
            self._consumers[name] = consumer
            tasks.create_task(consumer.run(stop, drain_s), name=f"feed.{name}")
            log.info("route.pulled", consumer=name)
        return _REFRESH_S
