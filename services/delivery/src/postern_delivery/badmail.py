"""Badmail: what could neither be delivered nor returned (stream BADMAIL, `badmail.<job-id>`).

One entry a job, with everybody for whom no way is left; the stored body, if there is one, stays until the entry is deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

import msgspec
import structlog

from postern_core.bus import Bus
from postern_core.bus.connection import Stored
from postern_core.bus.publishing import unavailable
from postern_core.bus.topology import BADMAIL, DISPOSITIONS, badmail_subject, disposition_subject
from postern_core.control import BadmailPage, BadmailRow, QueueAction, QueueQuery
from postern_core.disposition import Disposition
from postern_core.envelope import Recipient, frame, unframe
from postern_core.errors import TransientError
from postern_core.job import Badmail, Job
from postern_delivery.bodies import JobBodies, every_subject
from postern_delivery.outcome import Results

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_READ_AT_ONCE: Final = 8


class BadmailStore:
    """See the module. Every method raises TransientError when the bus is away."""

    def __init__(self, bus: Bus, bodies: JobBodies) -> None:
        self._bus = bus
        self._bodies = bodies

    async def put(self, job: Job, inline: bytes | memoryview, results: Results, reason: str) -> None:
        """Keep the job for these recipients; returns when it is stored. Repeats are harmless."""
        subject = badmail_subject(job.id)
        kept: tuple[Recipient, ...] = ()
        msg_id = f"{job.id}:badmail"
        present = await self._bus.last(BADMAIL, subject)
        if present is not None:
            # a stream keeps one message for each subject, so the entry is rewritten with everybody in it
            kept = _head(present, job.id).recipients
        known = {recipient.n for recipient in kept}
        added = tuple(result.recipient for result in results if result.recipient.n not in known)
        if not added:
            return
        if present is not None:
            msg_id += ":" + ",".join(str(recipient.n) for recipient in kept + added)
        job, beside = await self._bodies.stow(job, inline)
        entry = Badmail(job=job, recipients=kept + added, reason=reason, last_reply=results[0].reply)
        stored = await self._bus.publish(BADMAIL, subject, frame(entry, beside), msg_id)
        if stored.duplicate and await self._bus.last(BADMAIL, subject) is None:
            # deleted by an administrator inside the duplicate window, and bad once more
            await self._bus.publish(BADMAIL, subject, frame(entry, beside), f"{msg_id}:{results[0].at.timestamp()}")

    async def page(self, query: QueueQuery) -> BadmailPage:
        """Up to `query.limit` entries behind `query.after`, in the order of job ids."""
        job_ids = sorted(await self._job_ids(QueueAction(route=query.route)))
        wanted = [job_id for job_id in job_ids if job_id > query.after][: query.limit]
        rows: list[BadmailRow] = []
        for start in range(0, len(wanted), _READ_AT_ONCE):  # entries carry their mail: not too many in memory at once
            found = await asyncio.gather(*(self._row(job_id) for job_id in wanted[start : start + _READ_AT_ONCE]))
            rows += [row for row in found if row is not None]
        return BadmailPage(rows=tuple(rows), total=len(job_ids))

    async def delete(self, action: QueueAction) -> int:
        """Delete the entries that `action` means, and their bodies; returns how many."""
        deleted = 0
        async for stored in self._entries(action):
            try:
                head = _head(stored, stored.subject.removeprefix("badmail."))
            except TransientError as error:
                log.error("badmail.unreadable", subject=stored.subject, reason=error.reason)
                continue  # a newer program can read it: it is not ours to throw away
            if await self._bus.delete(BADMAIL, stored.sequence):
                deleted += 1
                log.info("badmail.deleted", id=head.job.queue_id, job_id=head.job.id, actor=action.actor)
            await self._bodies.let_go(head.job)
        return deleted

    async def _entries(self, action: QueueAction) -> AsyncIterator[Stored]:
        for job_id in await self._job_ids(action):
            stored = await self._bus.last(BADMAIL, badmail_subject(job_id))
            if stored is not None:
                yield stored

    async def _job_ids(self, action: QueueAction) -> list[str]:
        pattern = badmail_subject(action.job_id) if action.job_id else "badmail.*"
        job_ids = [subject.removeprefix("badmail.") async for subject in every_subject(self._bus, BADMAIL, pattern)]
        if action.queue_id:
            job_ids = [job_id for job_id in job_ids if job_id.startswith(f"{action.queue_id}-")]
        if action.route:
            job_ids = [job_id for job_id in job_ids if route_of(job_id) == action.route]
        return job_ids

    async def _row(self, job_id: str) -> BadmailRow | None:
        stored = await self._bus.last(BADMAIL, badmail_subject(job_id))
        if stored is None:
            return None
        try:
            head = _head(stored, job_id)
        except TransientError as error:
            log.error("badmail.unreadable", subject=stored.subject, reason=error.reason)
            return None
        return BadmailRow(
            job_id=job_id,
            queue_id=head.job.queue_id,
            reverse_path=head.job.envelope.reverse_path,
            recipients=tuple(recipient.address for recipient in head.recipients),
            reason=head.reason,
            at=await self._since(head),
            last_reply=head.last_reply,
        )

    async def _since(self, head: Badmail) -> datetime:
        """When it became badmail, as its disposition says; when it was accepted, once that has aged out."""
        stored = await self._bus.last(DISPOSITIONS, disposition_subject(head.job.queue_id, head.recipients[-1].n))
        if stored is None:
            return head.job.envelope.accepted_at
        return msgspec.json.decode(stored.data, type=Disposition).at


def _head(stored: Stored, job_id: str) -> Badmail:
    """TransientError when a newer program wrote it, or nobody can read it."""
    try:
        return unframe(stored.data, Badmail)[0]
    except ValueError as error:
        raise unavailable(f"badmail {job_id}: {error}") from error


def route_of(job_id: str) -> str:
    """The route in a job id (`<queue-id>-<route>-<generation>`)."""
    return job_id.partition("-")[2].rpartition("-")[0]
