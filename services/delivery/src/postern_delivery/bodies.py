"""Stored bodies of jobs: who refers to one, and when it may go.

A job's body is its own, but the job may lie in two places for a moment, or for good: partly deferred and partly badmail, or on its way from
one stream to the next. And a message that a screener let pass may have been held in a second run of it, under other rules, with the body of the
job. So a body goes only when neither DEFERRED nor BADMAIL nor QUARANTINE refers to it; what a crash leaves behind is the janitor's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import structlog

from postern_core.bus import BodyStore, Bus
from postern_core.bus.topology import BADMAIL, DEFERRED, QUARANTINE, badmail_subject, deferred_subject, quarantine_subject
from postern_core.errors import TransientError
from postern_core.job import Job

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class JobBodies:
    """Loads bodies and lets go of them."""

    def __init__(self, bus: Bus, store: BodyStore) -> None:
        self._bus = bus
        self._store = store

    async def load(self, job: Job, inline: memoryview) -> bytes | memoryview:
        """The job's message. Raises BodyMissing, and TransientError when the bus is away."""
        ref = job.envelope.body
        return inline if ref is None else await self._store.get(ref)

    async def stow(self, job: Job, inline: bytes | memoryview) -> tuple[Job, bytes | bytearray | memoryview]:
        """The job and the bytes behind it, as they may lie in a stream that is read by request: what came inline only for want of room in BODIES is
        stored there first, since readers ask for as many at once as fit at the inline limit. TransientError while there still is none."""
        if job.envelope.body is not None:
            return job, inline
        envelope, beside = await self._store.stow(job.envelope, job.id, inline)
        return msgspec.structs.replace(job, envelope=envelope), beside

    async def let_go(self, job: Job) -> None:
        """Delete the body of a job that is settled, unless something still refers to it. A failure leaves it to the janitor."""
        if job.envelope.body is None:
            return
        try:
            deferred, bad, held = await asyncio.gather(
                self._bus.last(DEFERRED, deferred_subject(job.id)),
                self._bus.last(BADMAIL, badmail_subject(job.id)),
                self._bus.subjects(QUARANTINE, quarantine_subject(job.queue_id)),
            )
            # a release takes a copy of the body along, and deletes the one that it held
            if deferred is None and bad is None and not held:
                await self._store.delete(job.envelope)
        except TransientError as error:
            log.warning("body.delete_failed", id=job.queue_id, name=job.envelope.body.name, reason=error.reason)


async def every_subject(bus: Bus, stream: str, subject_filter: str) -> AsyncIterator[str]:
    """All subjects of `stream` that match, page by page. Raises TransientError."""
    offset = 0
    while page := await bus.subjects(stream, subject_filter, offset=offset):
        for subject in page:
            yield subject
        offset += len(page)
