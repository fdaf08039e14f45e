"""A gate's publishing without the gate, and a reader of everything that it published."""

from __future__ import annotations

import asyncio
import time

from postern_core.bus import Bus, Consumer, Delivered
from postern_core.bus.topology import INTAKE, intake_subject
from postern_core.envelope import Gate
from postern_core.errors import TransientError
from postern_core.ids import QueueId, new_queue_id


class Publisher:
    """Publishes one message after another, each under its id until it is acknowledged or its deadline passes."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.acknowledged: dict[QueueId, float] = {}  # and when, by time.monotonic()
        self.refused = 0
        self.progress = asyncio.Condition()

    @property
    def port(self) -> int:
        """Of the node that we are connected to, 0 for none."""
        url = self._bus.client.connected_url
        return url.port or 0 if url is not None else 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            queue_id = new_queue_id()
            try:
                await self._bus.publish(INTAKE, intake_subject(Gate.ANON, queue_id), b"mail", f"{queue_id}:intake", deadline_s=8)
            except TransientError:
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            async with self.progress:
                self.acknowledged[queue_id] = time.monotonic()
                self.progress.notify_all()

    async def another(self, count: int) -> None:
        """Return when `count` more messages have been acknowledged."""
        async with self.progress:
            wanted = len(self.acknowledged) + count
            await self.progress.wait_for(lambda: len(self.acknowledged) >= wanted)


async def take_all(bus: Bus, expected: set[QueueId]) -> set[QueueId]:
    """Take from INTAKE until all that is expected was seen; returns everything that was. TimeoutError after a minute and a half."""
    stop = asyncio.Event()
    taken: set[QueueId] = set()

    async def take(delivered: Delivered) -> None:
        await delivered.ack()
        taken.add(QueueId(delivered.subject.rpartition(".")[2]))
        if expected <= taken:
            stop.set()

    async with asyncio.timeout(90):
        await Consumer(bus, INTAKE, "screener", take, concurrency=50).run(stop, 5)
    await bus.close()
    return taken
