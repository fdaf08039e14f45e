"""Keeps the retry queue and the stored mail in step: a row for each entry of DEFERRED, no row without one, no body without an owner.

Every pass is harmless to repeat, so each replica runs its own. An entry without a row is looked at twice before a row is made for it, since
the one that deferred it may be just about to.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Final

import structlog

from postern_core.bus import Bus
from postern_core.bus.topology import DEFERRED, deferred_subject
from postern_core.control import QueueAction
from postern_core.errors import TransientError
from postern_delivery.bodies import every_subject
from postern_delivery.deferral import Deferral
from postern_delivery.orphans import OrphanBodies
from postern_delivery.store.database import DatabaseAway
from postern_delivery.store.repository import QueueRepository, matching

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SECOND_LOOK_S: Final = 1.0


class Janitor:
    """See the module. `wanted` is set by whoever suspects that a row is missing."""

    def __init__(
        self,
        bus: Bus,
        repository: QueueRepository,
        deferral: Deferral,
        orphans: OrphanBodies,
        *,
        every_s: float,
        wanted: asyncio.Event,
    ) -> None:
        self._bus = bus
        self._repository = repository
        self._deferral = deferral
        self._orphans = orphans
        self._every_s = every_s
        self._wanted = wanted
        self._missing: set[str] = set()  # job ids without a row on the last pass
        self._alarmed: set[str] = set()  # job ids without mail that were told of

    async def run(self, stop: asyncio.Event) -> None:
        """A pass every `every_s` seconds, and sooner when one is wanted or something needs a second look."""
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._wanted.set())
        try:
            while not stop.is_set():
                self._wanted.clear()
                await self._pass()
                pause = min(self._every_s, _SECOND_LOOK_S) if self._missing else self._every_s
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wanted.wait()
                        if not stop.is_set():
                            await asyncio.sleep(_SECOND_LOOK_S)  # many may want one: once a second is enough
        finally:
            stopped.cancel()

    async def _pass(self) -> None:
        try:
            await self.reconcile()
        except (TransientError, DatabaseAway) as error:
            log.warning("janitor.postponed", step="reconcile", reason=str(error))
        try:
            await self._orphans.sweep()
        except TransientError as error:
            log.warning("janitor.postponed", step="orphans", reason=error.reason)

    async def reconcile(self) -> None:
        """Compare rows with entries once. Raises TransientError, DatabaseAway."""
        # first the stream: an entry is there before its row
        entries = {s.removeprefix("deferred.") async for s in every_subject(self._bus, DEFERRED, "deferred.*")}
        rows = await self._repository.job_ids()
        missing = entries - rows
        for job_id in missing & self._missing:
            await self._deferral.restore(job_id)
        self._missing = missing - self._missing
        self._alarmed &= rows
        for job_id in rows - entries:
            await self._look_for_mail(job_id)

    async def _look_for_mail(self, job_id: str) -> None:
        """A row goes before its entry: one that outlives it is wrong."""
        if job_id in self._alarmed or await self._bus.last(DEFERRED, deferred_subject(job_id)) is not None:
            return
        row = await self._repository.get(job_id)
        if row is None:
            return
        # due at once: the retry loop finds out whether it was settled, or sets it aside with an alarm
        self._alarmed.add(job_id)
        log.warning("deferred.entry_missing", id=row.queue_id, job_id=job_id)
        await self._repository.retry_now(matching(QueueAction(job_id=job_id)), datetime.now(UTC))
