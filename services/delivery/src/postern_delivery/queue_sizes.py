"""How long the retry queue is, for the status: counted by the database now and then, since nobody waits for the figure."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from postern_core.counters import BY_ROUTE
from postern_delivery.store.repository import QueueRepository

_EVERY_S: Final = 15.0


class QueueSizes:
    """`told` is by state and route; None while the queue cannot be read."""

    def __init__(self, repository: QueueRepository) -> None:
        self._repository = repository
        self.told: dict[str, float] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Count until `stop`. Raises DatabaseAway."""
        try:
            while not stop.is_set():
                sizes = await self._repository.sizes()
                self.told = {f"{state}{BY_ROUTE}{route}": count for (route, state), count in sizes.items()}
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY_S):
                        await stop.wait()
        finally:
            self.told = None
