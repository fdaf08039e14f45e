"""Acts on held mail. Each hands over before it lets go: output published, dispositions written, then the entry and its body deleted.

Cut short anywhere, an act can be repeated: its output and its dispositions are recognised as the same. Repeated after it was complete,
it answers as if it had been done now. Two different acts on the same message at the same moment exclude each other inside one replica.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from postern_api.errors import ConflictError, NotFoundError
from postern_api.policy.compiling import compile_policy
from postern_api.policy.editing import Editor
from postern_api.quarantine import handover
from postern_api.quarantine.indexing import QuarantineIndexer
from postern_api.quarantine.repository import QuarantineIndex
from postern_core.bus import BodyMissing, BodyStore, Bus, DispositionLog, EventSink
from postern_core.bus.topology import DISPOSITIONS, OUTBOUND, QUARANTINE, outbound_subject, quarantine_subject
from postern_core.disposition import Disposition, DispositionKind, is_of_several
from postern_core.envelope import frame, unframe
from postern_core.events import EventKind
from postern_core.ids import QueueId
from postern_core.job import Job
from postern_core.policy import DeliveryPolicy
from postern_core.verdict import HeldMessage

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Entry:
    """A held message as the stream has it."""

    held: HeldMessage
    inline: memoryview
    sequence: int
    at: datetime  # when it came into quarantine


class QuarantineService:
    """See the module. Every method raises TransientError when the bus does not answer."""

    def __init__(
        self,
        bus: Bus,
        *,
        index: QuarantineIndex,
        indexer: QuarantineIndexer,
        editor: Editor,
        events: EventSink,
        bodies: BodyStore,
    ) -> None:
        self._bus = bus
        self.index = index
        self.indexer = indexer
        self._editor = editor
        self._events = events
        self._bodies = bodies
        self._log = DispositionLog(bus)
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def find(self, queue_id: QueueId) -> Entry | None:
        """ConflictError when the entry cannot be read."""
        stored = await self._bus.last(QUARANTINE, quarantine_subject(queue_id))
        if stored is None:
            return None
        try:
            held, inline = unframe(stored.data, HeldMessage)
        except ValueError as error:
            raise ConflictError("unreadable", f"the quarantine entry cannot be read: {error}") from error
        if held.envelope.id != queue_id:
            raise ConflictError("unreadable", "the quarantine entry names another queue id than its own")
        return Entry(held, inline, stored.sequence, stored.at)

    async def get(self, queue_id: QueueId) -> Entry:
        """NotFoundError when the message is not in quarantine."""
        entry = await self.find(queue_id)
        if entry is None:
            raise NotFoundError("held message", queue_id)
        return entry

    async def body(self, entry: Entry) -> bytes | memoryview:
        """The whole message as it was received. ConflictError when its stored body is gone."""
        try:
            return await self._bodies.load(entry.held.envelope, entry.inline)
        except BodyMissing as error:
            log.error("message.body_missing", id=entry.held.envelope.id, alarm=True, reason=str(error))
            raise ConflictError("body_missing", f"the message's stored body is gone or damaged: {error}") from error

    async def release(self, queue_id: QueueId, actor: str) -> list[str]:
        """Send the message to its recipients after all. Returns the ids of its jobs, none when that was done before."""
        async with self._alone(queue_id):
            entry = await self._held(queue_id, DispositionKind.RELEASED)
            if entry is None:
                return []
            body = await self.body(entry)
            jobs = handover.release_jobs(entry.held, await self._policy())
            # before the jobs, and once: `released` is no end, and behind the `delivered` of its own generation it would hide that from
            # delivery, which looks at the newest disposition when a job comes again
            known = {end.n for end in await self._since_held(queue_id, entry.held.generation)}
            ends = handover.ends(entry.held, DispositionKind.RELEASED, actor, datetime.now(UTC))
            await self._log.write(end for end in ends if end.n not in known)
            for job in jobs:
                await self._publish(job, body)
            await self._let_go(entry)
            self._events.tell(queue_id, EventKind.RELEASED, by=actor, generation=entry.held.generation + 1)
            log.info("quarantine.released", id=queue_id, actor=actor, jobs=len(jobs))
            return [job.id for job in jobs]

    async def forward(self, queue_id: QueueId, to: str, actor: str) -> QueueId | None:
        """Send it to `to` instead of its recipients. Returns the queue id of the copy, None when that was done before."""
        async with self._alone(queue_id):
            entry = await self._held(queue_id, DispositionKind.FORWARDED, to)
            if entry is None:
                return None
            held = entry.held
            content = handover.original_recipients_field(held.envelope.recipients) + bytes(await self.body(entry))
            job = handover.forward_job(held, to, len(content), await self._policy(), datetime.now(UTC))
            await self._publish(job, content)
            ends = handover.ends(held, DispositionKind.FORWARDED, actor, datetime.now(UTC), job.queue_id)
            await self._finish(entry, ends)
            self._tell_accepted(job, about=queue_id)
            log.info("quarantine.forwarded", id=queue_id, actor=actor, successor=job.queue_id)
            return job.queue_id

    async def delete(self, queue_id: QueueId, actor: str) -> None:
        """End it: nobody is told."""
        async with self._alone(queue_id):
            entry = await self._held(queue_id, DispositionKind.DELETED)
            if entry is not None:
                await self._finish(entry, handover.ends(entry.held, DispositionKind.DELETED, actor, datetime.now(UTC)))
                log.info("quarantine.deleted", id=queue_id, actor=actor)

    async def _held(self, queue_id: QueueId, wanted: DispositionKind, to: str = "") -> Entry | None:
        """The entry; None when the act was complete before. NotFoundError when it was never held, ConflictError after another act."""
        entry = await self.find(queue_id)
        before = next(iter(await self._since_held(queue_id, entry.held.generation if entry else 0)), None)
        if before is None:
            if entry is None:
                raise NotFoundError("held message", queue_id)
            if wanted is not DispositionKind.RELEASED and await self._bus.subjects(OUTBOUND, f"outbound.*.{queue_id}"):
                raise ConflictError("already_decided", _CUT_SHORT)
            await self._refuse_half_held(entry)
            return entry
        kind = before.kind if before.kind in _ACTS else DispositionKind.RELEASED  # delivered, bounced …: after a release
        elsewhere = kind is DispositionKind.FORWARDED and before.successor_id != handover.forwarded_id(
            queue_id, before.accepted_at, to
        )
        if kind is not wanted or elsewhere:
            if entry is not None and kind is DispositionKind.RELEASED:
                raise ConflictError("already_decided", _CUT_SHORT)
            where = " to another address" if elsewhere else ""
            raise ConflictError("already_decided", f"the message was {kind}{where} before")
        return entry

    async def _refuse_half_held(self, entry: Entry) -> None:
        """ConflictError while the screener may still be writing that it holds the message: a `held` behind the dispositions of a release would
        hide them from whoever looks at the newest."""
        envelope = entry.held.envelope
        if datetime.now(UTC) - entry.at > _BEING_HELD:
            return  # long over; and dispositions age away while mail is held
        if len(await self._bus.subjects(DISPOSITIONS, f"disposition.{envelope.id}.*")) < len(envelope.recipients):
            raise ConflictError("being_held", "the screener is just putting this message into quarantine: try again in a moment")

    async def _since_held(self, queue_id: QueueId, held_generation: int) -> list[Disposition]:
        """The newest disposition of each recipient that has one since the message was held under this generation."""
        found = []
        for subject in await self._bus.subjects(DISPOSITIONS, f"disposition.{queue_id}.*"):
            if is_of_several(subject):
                continue  # of what was never held
            stored = await self._bus.last(DISPOSITIONS, subject)
            if stored is None:
                continue
            end = msgspec.json.decode(stored.data, type=Disposition)
            if end.generation > held_generation and end.kind is not DispositionKind.HELD:
                found.append(end)
        return found

    async def _publish(self, job: Job, body: bytes | memoryview) -> None:
        envelope, inline = await self._bodies.stow(job.envelope, job.id, body, inline_when_full=True)
        payload = frame(handover.with_body(job, envelope), inline)
        await self._bus.publish(OUTBOUND, outbound_subject(job.route, job.queue_id), payload, f"{job.id}:outbound")

    async def _finish(self, entry: Entry, ends: list[Disposition]) -> None:
        """Done is written before it is let go."""
        await self._log.write(ends)
        await self._let_go(entry)

    async def _let_go(self, entry: Entry) -> None:
        await self._bus.delete(QUARANTINE, entry.sequence)
        await self._bodies.delete(entry.held.envelope)
        await self.index.remove([entry.held.envelope.id])

    async def _policy(self) -> DeliveryPolicy:
        newest = await self._editor.current()
        compiled = compile_policy(newest.snapshot, newest.number)
        if compiled is None:
            raise ConflictError("no_route", "there is no default route: the message cannot go anywhere")
        return compiled.delivery

    def _tell_accepted(self, job: Job, about: QueueId) -> None:
        envelope = job.envelope
        self._events.tell(
            envelope.id,
            EventKind.ACCEPTED,
            gate=envelope.gate.value,
            reverse_path=envelope.reverse_path,
            recipients=len(envelope.recipients),
            to=envelope.recipients[0].address,
            size_bytes=envelope.size_bytes,
            about=about,
        )

    @asynccontextmanager
    async def _alone(self, queue_id: QueueId) -> AsyncIterator[None]:
        lock = self._locks.setdefault(queue_id, asyncio.Lock())
        async with lock:
            yield


_BEING_HELD = timedelta(minutes=10)  # more than a screener may take before its input is given to another
_CUT_SHORT = "a release of this message was cut short: repeat that instead"
_ACTS = frozenset({DispositionKind.RELEASED, DispositionKind.FORWARDED, DispositionKind.DELETED})
