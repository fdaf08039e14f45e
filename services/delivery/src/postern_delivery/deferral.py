"""Puts a job into the retry queue: the mail to DEFERRED first, then a row that says when it is due.

The entry in the stream is what counts. Without a database, the row is left to the janitor, which makes rows for entries that have none;
until then the job waits, and nothing is attempted twice for it. The clock of delay and expiry starts with the acceptance of the mail, or
with the deferral where that came long after (mail released from quarantine, mail that Postern wrote).
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from postern_core.bus import Bus, DispositionLog, EventSink
from postern_core.bus.topology import DEFERRED, deferred_subject
from postern_core.counters import CounterName, Counters
from postern_core.envelope import Gate, frame, unframe
from postern_core.events import EventKind
from postern_core.job import Job
from postern_core.policy import RetrySchedule
from postern_delivery.bodies import JobBodies
from postern_delivery.outcome import Results, retry_all
from postern_delivery.routing import RoutingTable
from postern_delivery.schedule import expires_at, next_attempt
from postern_delivery.store.database import DatabaseAway
from postern_delivery.store.repository import FROZEN, WAITING, QueuedJob, QueueRepository

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_INSERT_S: Final = 5.0  # a database that hangs must not hold up the mail of a route: the janitor makes the row


class Deferral:
    """See the module. Sets `queue_changed` after a row was made, `janitor_wanted` when one could not be made."""

    def __init__(
        self,
        *,
        bus: Bus,
        repository: QueueRepository,
        dispositions: DispositionLog,
        bodies: JobBodies,
        table: Callable[[], RoutingTable],
        events: EventSink,
        jitter: float,
        queue_changed: asyncio.Event,
        janitor_wanted: asyncio.Event,
    ) -> None:
        self._bus = bus
        self._repository = repository
        self._dispositions = dispositions
        self._bodies = bodies
        self._table = table
        self._events = events
        self._jitter = jitter
        self._queue_changed = queue_changed
        self._janitor_wanted = janitor_wanted
        self.counters = Counters()

    async def has(self, job: Job) -> bool:
        """Whether the job is deferred already. Raises TransientError."""
        return await self._bus.last(DEFERRED, deferred_subject(job.id)) is not None

    async def defer(self, job: Job, inline: bytes | memoryview, results: Results, *, frozen: bool = False) -> None:
        """Keep the job for its open recipients; returns once it is durable in DEFERRED. Raises TransientError.

        `frozen`: it waits for an administrator instead of another attempt.
        """
        open_results = tuple(result for result in results if result.is_open)
        job, beside = await self._bodies.stow(job, inline)
        kept = msgspec.structs.replace(job, recipients=tuple(result.recipient for result in open_results))
        payload, subject = frame(kept, beside), deferred_subject(job.id)
        stored = await self._bus.publish(DEFERRED, subject, payload, f"{job.id}:deferred")
        if stored.duplicate and await self._bus.last(DEFERRED, subject) is None:
            # deferred, settled and let go within the duplicate window, and here once more: not a copy of anything
            await self._bus.publish(DEFERRED, subject, payload, f"{job.id}:deferred:{open_results[0].at.timestamp()}")
        row = self._row(kept, results, datetime.now(UTC), state=FROZEN if frozen else WAITING)
        await self._insert(row)
        self.tell(row, job)

    async def restore(self, job_id: str) -> None:
        """Make the row that an entry of DEFERRED lacks, or finish what was settled before a crash. Raises TransientError, DatabaseAway."""
        stored = await self._bus.last(DEFERRED, deferred_subject(job_id))
        if stored is None:
            return
        try:
            job, _ = unframe(stored.data, Job)
        except ValueError as error:
            log.error("deferred.unreadable", job_id=job_id, reason=str(error))
            return
        settled = await self._dispositions.settled(job, job.recipients)
        left = [recipient for recipient in job.recipients if recipient.n not in settled]
        if not left:
            await self.finish(job, stored.sequence)
            return
        now = datetime.now(UTC)
        results = retry_all(left, now, text="its queue row was lost and has been made again")
        # the clock of delay and expiry goes on: it is not the mail's fault that its row was lost
        row = dataclasses.replace(self._row(job, results, now, deferred_at=stored.at), next_attempt_at=now)
        if await self._repository.insert(row):
            log.warning("deferred.row_restored", id=job.queue_id, job_id=job_id, recipients=len(left))
            self._queue_changed.set()

    async def finish(self, job: Job, sequence: int) -> None:
        """Let go of the mail of a job whose recipients all have their disposition, and whose row is gone. Raises TransientError."""
        await self._bus.delete(DEFERRED, sequence)
        await self._bodies.let_go(job)

    def postponed(self, row: QueuedJob, results: Results, *, delay_notified: bool) -> QueuedJob:
        """The row after another attempt, with its next one."""
        now = datetime.now(UTC)
        schedule = self._table().policy.schedule
        changed = {result.recipient.n: result for result in results}
        attempts = row.attempts + 1
        return dataclasses.replace(
            row,
            results=tuple(changed.get(result.recipient.n, result) for result in row.results),
            attempts=attempts,
            delay_notified=delay_notified,
            expires_at=expires_at(schedule, row.queued_at),
            next_attempt_at=self._next(schedule, row.queued_at, now, attempts, delay_notified=delay_notified),
            last_reply=_last_reply(results),
        )

    def tell(self, row: QueuedJob, job: Job) -> None:
        """Log and trace that a job waits."""
        self.counters.add(CounterName.DEFERRALS, row.route)
        open_results = row.open_results
        next_hop = open_results[0].next_hop if open_results else ""
        delay_s = round((row.next_attempt_at - datetime.now(UTC)).total_seconds(), 1)
        log.info(
            "job.deferred",
            id=row.queue_id,
            route=row.route,
            recipients=len(open_results),
            attempts=row.attempts,
            delay_s=delay_s,
            frozen=row.state == FROZEN,
            next_hop=next_hop,
            reply=row.last_reply,
        )
        self._events.tell(
            job.queue_id,
            EventKind.DEFERRED,
            route=row.route,
            next_hop=next_hop,
            reply=row.last_reply[:200],
            recipients=len(open_results),
            attempts=row.attempts,
            next_attempt_at=row.next_attempt_at.isoformat(timespec="seconds"),
        )

    async def _insert(self, row: QueuedJob) -> None:
        try:
            async with asyncio.timeout(_INSERT_S):
                await self._repository.insert(row)
        except (DatabaseAway, TimeoutError) as error:
            log.warning("deferred.row_postponed", id=row.queue_id, job_id=row.job_id, reason=str(error) or "no answer")
            self._janitor_wanted.set()
        else:
            self._queue_changed.set()

    def _row(
        self, job: Job, results: Results, now: datetime, *, deferred_at: datetime | None = None, state: str = WAITING
    ) -> QueuedJob:
        envelope, schedule = job.envelope, self._table().policy.schedule
        fresh = job.generation == 0 and envelope.gate is not Gate.INTERNAL
        queued_at = envelope.accepted_at if fresh else deferred_at or now
        return QueuedJob(
            job_id=job.id,
            queue_id=job.queue_id,
            route=job.route,
            reverse_path=envelope.reverse_path,
            results=results,
            attempts=1,
            accepted_at=envelope.accepted_at,
            queued_at=queued_at,
            next_attempt_at=self._next(schedule, queued_at, now, 1, delay_notified=False),
            expires_at=expires_at(schedule, queued_at),
            size_bytes=envelope.size_bytes,
            last_reply=_last_reply(results),
            state=state,
        )

    def _next(
        self, schedule: RetrySchedule, queued_at: datetime, now: datetime, attempts: int, *, delay_notified: bool
    ) -> datetime:
        jitter = random.uniform(0, self._jitter)  # noqa: S311  (spreads load, guards nothing)
        return next_attempt(
            schedule, queued_at=queued_at, now=now, attempts=attempts, delay_notified=delay_notified, jitter=jitter
        )


def _last_reply(results: Results) -> str:
    return next((result.reply for result in results if result.is_open), "")
