"""The first attempt at a job from OUTBOUND. Mail that is delivered here never touches a database.

    look up what is done already (only for a marked job, or one that was in hand before) → attempt → settle → defer the rest → acknowledge

The acknowledgement is the last step of every way through; whatever fails before it brings the job back. The jobs of a batch go side by side, each
to its own end, and are let go together: what has ended is written down by then, so that a batch that comes back repeats none of it. A job that fails for a reason
that nobody foresaw comes back `MOST_FAULTS` times at most, and is then set aside: it lies in the retry queue, frozen, with that reason, until an
administrator lets it go on, returns or deletes it.
"""

from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime
from typing import Final

import structlog

from postern_core.batch import unframe_all
from postern_core.bus import BodyMissing, Delivered, DispositionLog
from postern_core.disposition import DispositionKind
from postern_core.envelope import Recipient
from postern_core.errors import TransientError
from postern_core.job import Job
from postern_delivery.attempt import Attempts
from postern_delivery.bodies import JobBodies
from postern_delivery.deferral import Deferral
from postern_delivery.outcome import Fate, Results, reopened, retry_all
from postern_delivery.poison import MOST_FAULTS, Faults, named
from postern_delivery.settlement import Settlement

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_BUSY_S: Final = 5.0  # until a job that is in hand already is offered again
# until a job that could not be settled is offered again: the broker was away for a moment, or DEFERRED is full; the last one repeats
_POSTPONES_S: Final = (5.0, 15.0, 60.0)
_UNREADABLE_S: Final = 600.0
_FAULT_PAUSES_S: Final = (5.0, 30.0, 120.0, 600.0)  # after a fault that nobody foresaw; the last one repeats


class FirstTry:
    """Handles jobs of OUTBOUND. See the module."""

    def __init__(
        self,
        *,
        dispositions: DispositionLog,
        bodies: JobBodies,
        attempts: Attempts,
        settlement: Settlement,
        deferral: Deferral,
        janitor_wanted: asyncio.Event,
    ) -> None:
        self._dispositions = dispositions
        self._bodies = bodies
        self._attempts = attempts
        self._settlement = settlement
        self._deferral = deferral
        self._janitor_wanted = janitor_wanted
        self._in_hand: set[str] = set()
        self._faults = Faults()

    async def handle(self, delivered: Delivered) -> None:
        """One entry: a job, or a batch of them. Ends in `ack` or `retry`."""
        try:
            members = unframe_all(delivered.data, Job)
        except ValueError as error:
            log.error("job.unreadable", subject=delivered.subject, tries=delivered.tries, reason=str(error))
            await delivered.retry(_UNREADABLE_S)
            return
        if len(members) == 1:
            pauses = [await self._one(delivered, *members[0])]
        else:
            async with asyncio.TaskGroup() as tasks:
                working = [tasks.create_task(self._member(delivered, job, inline), name=job.id) for job, inline in members]
            pauses = [work.result() for work in working]
        # the soonest: what waits for another reason is looked at once more in between, which harms nobody
        if pause := min(filter(None, pauses), default=0.0):
            await delivered.retry(pause)
        else:
            await delivered.ack()

    async def _member(self, delivered: Delivered, job: Job, inline: memoryview) -> float:
        pause = await self._one(delivered, job, inline)
        delivered.member_ended()  # or one that is slow would take the places of all
        return pause

    async def _one(self, delivered: Delivered, job: Job, inline: memoryview) -> float:
        """Returns 0 when the job may be let go, else the seconds until it should be offered again."""
        tries, job_id = delivered.tries, job.id
        if job_id in self._in_hand:
            # the broker gave it out once more while it was away; the one that has it will write down how it ends
            return _BUSY_S
        self._in_hand.add(job_id)
        try:
            await self._handle(job, inline, repeated=job.maybe_duplicate or delivered.repeated)
        except TransientError as error:
            log.warning("job.postponed", id=job.queue_id, route=job.route, tries=tries, reason=error.reason)
            return _POSTPONES_S[min(tries, len(_POSTPONES_S)) - 1]
        except asyncio.CancelledError:
            log.info("job.handed_back", id=job.queue_id, route=job.route, tries=tries)
            raise
        except Exception as error:  # the one handler of a job: it goes back, or where an administrator finds it
            log.exception("job.failed", id=job.queue_id, route=job.route, tries=tries)
            return await self._failed(tries, job, inline, error)
        else:
            self._faults.forget(job_id)
            return 0.0
        finally:
            self._in_hand.discard(job_id)

    async def _failed(self, tries: int, job: Job, inline: memoryview, error: Exception) -> float:
        """Nobody foresaw `error`. Deliveries count, and faults that this process saw: tries for another reason convict nobody."""
        faults = self._faults.count(job.id)
        if tries >= MOST_FAULTS and faults > 1:
            reason = f"delivery failed {tries} times, at last: {named(error)}"
            try:
                await self._set_aside(job, inline, "job.poison", reason)
            except TransientError as postponed:
                log.warning("job.postponed", id=job.queue_id, route=job.route, tries=tries, reason=postponed.reason)
            except Exception:  # the fault is in setting aside itself: it stays where it is, and does not spin
                log.exception("job.not_set_aside", id=job.queue_id, route=job.route, tries=tries)
            else:
                self._faults.forget(job.id)
                return 0.0
        return _FAULT_PAUSES_S[min(faults, len(_FAULT_PAUSES_S)) - 1]

    async def _handle(self, job: Job, inline: memoryview, *, repeated: bool) -> None:
        """Returns when the job may be let go."""
        recipients = job.recipients
        if repeated:
            # in this order: a deferred job that is settled in between leaves DEFERRED after its dispositions are written
            if await self._deferral.has(job):
                self._janitor_wanted.set()  # its row may be missing
                return
            recipients = await self._open_recipients(job)
        if recipients:
            await self._settle(job, inline, recipients, repeated=repeated)
        else:
            await self._bodies.let_go(job)

    async def _settle(self, job: Job, inline: memoryview, recipients: tuple[Recipient, ...], *, repeated: bool) -> None:
        try:
            body = await self._bodies.load(job, inline)
        except BodyMissing as error:
            await self._set_aside(job, inline, "body.missing", str(error))
            return
        results = await self._attempt(job, inline, body, recipients, repeated=repeated)
        if any(result.is_open for result in results):
            await self._deferral.defer(job, inline, results)
        else:
            await self._bodies.let_go(job)

    async def _open_recipients(self, job: Job) -> tuple[Recipient, ...]:
        settled = await self._dispositions.settled(job, job.recipients)
        if settled:
            log.info("job.partly_settled", id=job.queue_id, route=job.route, settled=len(settled), of=len(job.recipients))
        return tuple(recipient for recipient in job.recipients if recipient.n not in settled)

    async def _attempt(
        self,
        job: Job,
        inline: memoryview,
        body: bytes | memoryview,
        recipients: tuple[Recipient, ...],
        *,
        repeated: bool,
    ) -> Results:
        """Attempt, and settle what can be settled; returns the results, with everybody open who must be deferred."""
        settled = functools.partial(self._settlement.delivered, job, body)
        results = await self._attempts.run(job, recipients, body, settled)
        bounced = tuple(result for result in results if result.fate is Fate.BOUNCE)
        if not bounced:
            return results
        try:
            await self._settlement.failed(job, bounced, inline, body, DispositionKind.BOUNCED, maybe_duplicate=repeated)
        except TransientError as error:
            # OUTBOUND is full, perhaps with mail like this: room comes from deferring it, the answer will be the same then
            log.warning("ndr.postponed", id=job.queue_id, recipients=len(bounced), reason=error.reason)
            return tuple(reopened(result) if result.fate is Fate.BOUNCE else result for result in results)
        return results

    async def _set_aside(self, job: Job, inline: memoryview, event: str, reason: str) -> None:
        """An alarm, and it waits for an administrator, unless a copy of it was settled meanwhile. Raises TransientError."""
        left = await self._open_recipients(job)
        if left:
            log.error(event, id=job.queue_id, job_id=job.id, alarm=True, recipients=len(left), reason=reason)
            results = retry_all(left, datetime.now(UTC), text=f"set aside: {reason}")
            await self._deferral.defer(job, inline, results, frozen=True)
