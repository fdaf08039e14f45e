"""Can the api do its work: are database and broker there, and does the broker store what it is told?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import nats.errors
from sqlalchemy.exc import SQLAlchemyError

from postern_api.store.database import Database
from postern_core.bus import Bus

_TIMEOUT_S: Final = 2
_EVERY_S: Final = 5.0


class Health:
    """`reasons` is empty when the api is ready; it is looked at every few seconds, and whenever somebody asks. `not_storing` says why the broker
    stores nothing, "" when it does."""

    def __init__(self, bus: Bus, database: Database, *, not_storing: Callable[[], str]) -> None:
        self._bus = bus
        self._database = database
        self._not_storing = not_storing
        self.reasons: tuple[str, ...] = ("starting",)

    async def check(self) -> tuple[str, ...]:
        """Why the api is not ready, one sentence each."""
        found = await asyncio.gather(self._broker(), self._store())
        self.reasons = tuple(reason for reason in found if reason)
        return self.reasons

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.check()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _EVERY_S)

    async def _broker(self) -> str:
        if not self._bus.connected:
            return "the broker is away"
        try:
            await self._bus.client.flush(timeout=_TIMEOUT_S)
        except (nats.errors.Error, OSError, TimeoutError):
            return "the broker does not answer"
        problem = self._not_storing()
        return f"the broker stores nothing: {problem}" if problem else ""

    async def _store(self) -> str:
        try:
            await self._database.ping(_TIMEOUT_S)
        except (SQLAlchemyError, OSError, TimeoutError):
            return "the database does not answer"
        return ""
