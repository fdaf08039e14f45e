"""One further attempt at a deferred job, under a lease on its row; or what an administrator asked for instead.

    mail from DEFERRED → what is settled already → attempt → settle → expired, told of the delay, or due again

The row goes first when nothing is left to do, then the entry of DEFERRED, then the body: a crash in between leaves an entry without a
row, which the janitor recognises as settled. A row whose mail is gone, or cannot be read, still knows its recipients: an administrator can
have it deleted or returned, and they get their disposition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import structlog

from postern_core.bus import BodyMissing, Bus, DispositionLog
from postern_core.bus.connection import Stored
from postern_core.bus.topology import DEFERRED, deferred_subject
from postern_core.disposition import DispositionKind
from postern_core.envelope import Client, Envelope, Gate, unframe
from postern_core.errors import TransientError
from postern_core.ids import QueueId
from postern_core.job import Job
from postern_delivery.attempt import Attempts
from postern_delivery.bodies import JobBodies
from postern_delivery.deferral import Deferral
from postern_delivery.notices import Notices, may_be_answered
from postern_delivery.outcome import Fate, Results, closed, reopened
from postern_delivery.routing import RoutingTable
from postern_delivery.schedule import delay_notice_at, expires_at
from postern_delivery.settlement import Settlement
from postern_delivery.store.repository import RETURN, QueuedJob, QueueRepository

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class RetryAttempt:
    """See the module."""

    def __init__(
        self,
        *,
        bus: Bus,
        repository: QueueRepository,
        dispositions: DispositionLog,
        bodies: JobBodies,
        attempts: Attempts,
        settlement: Settlement,
        deferral: Deferral,
        notices: Notices,
        table: Callable[[], RoutingTable],
    ) -> None:
        self._bus = bus
        self._repository = repository
        self._dispositions = dispositions
        self._bodies = bodies
        self._attempts = attempts
        self._settlement = settlement
        self._deferral = deferral
        self._notices = notices
        self._table = table

    async def run(self, row: QueuedJob, owner: str) -> None:
        """Work on `row`, leased by `owner`. Raises TransientError and DatabaseAway; the lease then ends by itself or is given back."""
        stored = await self._bus.last(DEFERRED, deferred_subject(row.job_id))
        if stored is None:
            await self._without_mail(row)
            return
        try:
            job, inline = unframe(stored.data, Job)
        except ValueError as error:
            await self._unreadable(row, stored, str(error))
            return
        left = await self._left(row, job)
        if left and row.removal:
            left = await self._remove(row, job, inline, left)
        elif left:
            left = await self._attempt(row, job, inline, left, owner)
        if not left:
            await self._repository.delete(row.job_id)
            await self._deferral.finish(job, stored.sequence)

    async def _left(self, row: QueuedJob, job: Job) -> Results:
        """The open recipients, without those that were settled before a crash kept the row from saying so."""
        open_results = row.open_results
        recipients = [result.recipient for result in open_results]
        settled = await self._dispositions.settled(job, recipients)
        return tuple(result for result in open_results if result.recipient.n not in settled)

    async def _attempt(self, row: QueuedJob, job: Job, inline: memoryview, left: Results, owner: str) -> Results:
        """Returns who is still open; the row says so already."""
        try:
            body = await self._bodies.load(job, inline)
        except BodyMissing as error:
            log.error("body.missing", id=job.queue_id, job_id=job.id, alarm=True, reason=str(error))
            await self._repository.freeze(row.job_id, last_reply=f"set aside: {error}")
            return left

        # a row does not know the batch in which its job came, and is all that is left where the database is older than the stream
        of_its_own = msgspec.structs.replace(job, batch=job.batch if job.batch == job.queue_id else "")
        settled = functools.partial(self._settlement.delivered, of_its_own, body)
        results = await self._attempts.run(job, [result.recipient for result in left], body, settled)
        results = await self._bounce(job, inline, body, results)
        waiting = tuple(result for result in results if result.is_open)
        if waiting and await self._expired(row, job, inline, body, waiting):
            return ()
        if waiting:
            notified = row.delay_notified or await self._notify(row, job, body, waiting)
            changed = self._deferral.postponed(row, results, delay_notified=notified)
            if await self._repository.postpone(changed, owner=owner):
                self._deferral.tell(changed, job)
            else:
                log.warning("lease.lost", id=row.queue_id, job_id=row.job_id)
        return waiting

    async def _bounce(self, job: Job, inline: memoryview, body: bytes | memoryview, results: Results) -> Results:
        """Settle what was refused for good; returns the results, with those open again for whom that could not be stored."""
        refused = tuple(result for result in results if result.fate is Fate.BOUNCE)
        if not refused:
            return results
        try:
            await self._settlement.failed(job, refused, inline, body, DispositionKind.BOUNCED, maybe_duplicate=True)
        except TransientError as error:
            log.warning("ndr.postponed", id=job.queue_id, recipients=len(refused), reason=error.reason)
            return tuple(reopened(result) if result.fate is Fate.BOUNCE else result for result in results)
        return results

    async def _expired(self, row: QueuedJob, job: Job, inline: memoryview, body: bytes | memoryview, waiting: Results) -> bool:
        """Give the job up when its time is over; False when it is not, or when that could not be stored."""
        schedule = self._table().policy.schedule
        if datetime.now(UTC) < expires_at(schedule, row.queued_at):
            return False
        detail = f"not delivered within {schedule.expiry_s:g} s"
        try:
            await self._settlement.failed(
                job, waiting, inline, body, DispositionKind.EXPIRED, detail=detail, maybe_duplicate=True
            )
        except TransientError as error:
            log.warning("ndr.postponed", id=job.queue_id, recipients=len(waiting), reason=error.reason)
            return False
        return True

    async def _notify(self, row: QueuedJob, job: Job, body: bytes | memoryview, waiting: Results) -> bool:
        """Tell the sender of the delay when it is time; whether that is done."""
        schedule = self._table().policy.schedule
        due = delay_notice_at(schedule, row.queued_at)
        if due is None or datetime.now(UTC) < due:
            return False
        try:
            await self._notices.delayed(job, waiting, body, retry_until=expires_at(schedule, row.queued_at))
        except TransientError as error:
            log.warning("delay_notice.postponed", id=job.queue_id, reason=error.reason)
            return False
        return True

    async def _remove(self, row: QueuedJob, job: Job, inline: memoryview, left: Results) -> Results:
        """What an administrator asked for: delete, or give up with an NDR. Nobody is left then."""
        if row.removal == RETURN and may_be_answered(job):
            try:
                body = await self._bodies.load(job, inline)
            except BodyMissing as error:
                log.error("body.missing", id=job.queue_id, job_id=job.id, alarm=True, reason=str(error))
                body = b""
            detail = f"given up by {row.removal_actor or 'an administrator'}"
            given_up = tuple(closed(result) for result in left)
            await self._settlement.failed(
                job, given_up, inline, body, DispositionKind.BOUNCED, detail=detail, maybe_duplicate=True
            )
        else:
            await self._settlement.deleted(job, left, row.removal_actor)
        return ()

    async def _without_mail(self, row: QueuedJob) -> None:
        """The stream has no entry for this row: settled before a crash (or the database is older than the stream), or an alarm."""
        job = _stand_in(row)
        left = await self._left(row, job)
        if left and not row.removal:
            log.error("deferred.mail_missing", id=row.queue_id, job_id=row.job_id, alarm=True)
            await self._repository.freeze(row.job_id, last_reply="set aside: the stored mail is missing")
            return
        if left:
            await self._remove(row, job, memoryview(b""), left)
        await self._repository.delete(row.job_id)

    async def _unreadable(self, row: QueuedJob, stored: Stored, reason: str) -> None:
        """A newer program wrote the entry, or nobody can read it. The lease runs out by itself: perhaps a replica that is newer takes it."""
        log.error("deferred.unreadable", id=row.queue_id, job_id=row.job_id, reason=reason)
        if not row.removal:
            return
        await self._without_mail(row)
        await self._bus.delete(DEFERRED, stored.sequence)  # its body, if it has one, is the janitor's


def _stand_in(row: QueuedJob) -> Job:
    """The job as far as its row knows it, without its message, to end it with. What only the envelope knew is guessed; the ledger
    believes the acceptance rather than this."""
    recipients = tuple(result.recipient for result in row.results)
    envelope = Envelope(
        id=QueueId(row.queue_id),
        gate=Gate.ANON,
        reverse_path=row.reverse_path,
        recipients=recipients,
        size_bytes=row.size_bytes,
        accepted_at=row.accepted_at,
        client=Client(address=""),
        smtputf8=not all(address.isascii() for address in (row.reverse_path, *(r.address for r in recipients))),
    )
    generation = int(row.job_id.rpartition("-")[2])
    return Job(route=row.route, envelope=envelope, recipients=recipients, generation=generation, batch=row.queue_id)
