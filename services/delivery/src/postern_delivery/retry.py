"""The retry loop: leases rows that are due and works on them, a few at a time for each route, so that a slow one holds up no other.

It sleeps until the next row is due, or until somebody pokes it. A lease is renewed while work goes on, and given back when the program
stops in the middle; that of a dead replica runs out. Without its database or the broker the loop waits; nothing is lost, since the mail
is in DEFERRED. An attempt that one of them failed is repeated soon: the lease of a minute is for replicas that died. A row whose work
fails for a reason that nobody foresaw is tried again when its lease ends, and frozen with that reason after `MOST_FAULTS` times.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from postern_core.errors import TransientError
from postern_delivery.poison import MOST_FAULTS, Faults, named
from postern_delivery.store.database import DatabaseAway
from postern_delivery.store.repository import QueuedJob, QueueRepository

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SHORTEST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0  # another replica may have put in a row that is due earlier
_AWAY_PAUSE_S: Final = 2.0  # before another look at a database or a broker that did not answer

Work = Callable[[QueuedJob, str], Awaitable[None]]


class RetryLoop:
    """See the module. `owner` names this replica among all; `work` is called with a leased row, and not while `has_mail` says that the
    stored mail cannot be read; `queue_changed` wakes the loop."""

    def __init__(
        self,
        repository: QueueRepository,
        work: Work,
        *,
        owner: str,
        concurrency: int,
        lease_s: float,
        has_mail: Callable[[], bool],
        queue_changed: asyncio.Event,
    ) -> None:
        self._repository = repository
        self._work = work
        self._owner = owner
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._has_mail = has_mail
        self._active: Counter[str] = Counter()  # attempts under way, by route
        self._in_hand: set[str] = set()  # job ids
        self._faults = Faults()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = queue_changed

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    def poke(self) -> None:
        """Look at once: a row was made or changed."""
        self._wake.set()

    async def run(self, stop: asyncio.Event, drain_s: float) -> None:
        """Retry until `stop`; then finish what is under way, for at most `drain_s` seconds, and give back the rest."""
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        try:
            while not stop.is_set():
                self._wake.clear()
                pause = await self._round()
                await asyncio.sleep(_SHORTEST_PAUSE_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(pause - _SHORTEST_PAUSE_S, 0.001)):
                        await self._wake.wait()
        finally:
            stopped.cancel()
            await self._drain(drain_s)

    async def _round(self) -> float:
        """Start what is due and fits; returns the seconds until there is more to do."""
        if not self._has_mail():
            return _AWAY_PAUSE_S
        try:
            now = datetime.now(UTC)
            for route in await self._repository.routes_due(now):
                free = self._concurrency - self._active[route]
                if free > 0:
                    until = now + timedelta(seconds=self._lease_s)
                    for row in await self._repository.lease(route, free, owner=self._owner, now=now, until=until):
                        self._start(row)
            full = {route for route, active in self._active.items() if active >= self._concurrency}
            due = await self._repository.next_due(excluding=full)
        except DatabaseAway as error:
            log.warning("queue.unavailable", reason=str(error))
            return _AWAY_PAUSE_S
        if due is None:
            return _LONGEST_PAUSE_S
        return min((due - datetime.now(UTC)).total_seconds(), _LONGEST_PAUSE_S)

    def _start(self, row: QueuedJob) -> None:
        if row.job_id in self._in_hand:
            return  # its lease ran out while the database was away; what we work on has a new one now
        self._in_hand.add(row.job_id)
        self._active[row.route] += 1
        task = asyncio.create_task(self._run(row), name=f"retry.{row.job_id}")
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._ended, row))

    def _ended(self, row: QueuedJob, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_hand.discard(row.job_id)
        self._active[row.route] -= 1
        if self._active[row.route] == self._concurrency - 1:
            self.poke()

    async def _run(self, row: QueuedJob) -> None:
        renewing = asyncio.create_task(self._renew(row), name=f"retry.renew.{row.job_id}")
        try:
            await self._work(row, self._owner)
        except asyncio.CancelledError:
            await self._give_back(row)
            raise
        except (TransientError, DatabaseAway) as error:
            log.warning("retry.postponed", id=row.queue_id, job_id=row.job_id, reason=str(error))
            renewing.cancel()
            await self._soon_again(row)
        except Exception as error:  # the one handler of a task: the row is due again when its lease ends, nothing is lost
            log.exception("retry.failed", id=row.queue_id, job_id=row.job_id)
            renewing.cancel()
            await self._failed(row, error)
        else:
            self._faults.forget(row.job_id)
        finally:
            renewing.cancel()

    async def _failed(self, row: QueuedJob, error: Exception) -> None:
        """Nobody foresaw `error`."""
        faults = self._faults.count(row.job_id)
        if faults < MOST_FAULTS:
            return
        reason = f"set aside: delivery failed {faults} times, at last: {named(error)}"
        log.error("job.poison", id=row.queue_id, job_id=row.job_id, recipients=len(row.open_results), reason=reason)
        try:
            # where it was the removal that failed, that is over too: an administrator asks for another one
            await self._repository.freeze(row.job_id, last_reply=reason, end_removal=bool(row.removal))
        except DatabaseAway as away:
            log.warning("retry.postponed", id=row.queue_id, job_id=row.job_id, reason=str(away))
        else:
            self._faults.forget(row.job_id)

    async def _renew(self, row: QueuedJob) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                until = datetime.now(UTC) + timedelta(seconds=self._lease_s)
                if not await self._repository.renew(row.job_id, owner=self._owner, until=until):
                    return  # settled, or taken over: writing under the lease will tell
            except DatabaseAway as error:
                log.warning("lease.not_renewed", id=row.queue_id, job_id=row.job_id, reason=str(error))

    async def _soon_again(self, row: QueuedJob) -> None:
        try:
            until = datetime.now(UTC) + timedelta(seconds=min(_AWAY_PAUSE_S, self._lease_s))
            await self._repository.renew(row.job_id, owner=self._owner, until=until)
        except DatabaseAway as error:
            log.warning("lease.not_shortened", id=row.queue_id, job_id=row.job_id, reason=str(error))

    async def _give_back(self, row: QueuedJob) -> None:
        try:
            async with asyncio.timeout(1):
                await self._repository.give_back(row.job_id, owner=self._owner)
        except (DatabaseAway, TimeoutError) as error:
            log.warning("lease.not_given_back", id=row.queue_id, job_id=row.job_id, reason=str(error))

    async def _drain(self, drain_s: float) -> None:
        if not self._tasks:
            return
        _, pending = await asyncio.wait(self._tasks, timeout=drain_s)
        for task in pending:
            log.info("retry.interrupted", task=task.get_name())
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=1.5)
