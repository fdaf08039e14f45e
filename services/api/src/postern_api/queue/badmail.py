"""Deletes badmail. The entry is delivery's, and the disposition is written here, so that the ledger counts as badmail what lies in BADMAIL.

Done is written before it is let go: cut short, the act is repeated, and writes and deletes what is left of it.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from postern_api.errors import ConflictError
from postern_api.messages.records import Trace
from postern_api.messages.repository import TraceRepository
from postern_api.queue.service import QueueService
from postern_core.bus import Bus, DispositionLog
from postern_core.bus.topology import DISPOSITIONS
from postern_core.contract import decode
from postern_core.control import DeliveryVerb, QueueAction
from postern_core.disposition import Disposition, DispositionKind, is_of_several
from postern_core.envelope import Gate
from postern_core.ids import QueueId


class BadmailService:
    """TransientError when the bus does not answer, UnavailableError when delivery does not."""

    def __init__(self, bus: Bus, queue: QueueService, trace: TraceRepository) -> None:
        self._bus = bus
        self._queue = queue
        self._trace = trace
        self._log = DispositionLog(bus)

    async def delete(self, job_id: str, actor: str) -> bool:
        """End the job's badmail for good; False when there is none. ConflictError when a newer program wrote of it."""
        now = datetime.now(UTC)
        ends = [
            msgspec.structs.replace(end, kind=DispositionKind.DELETED, at=now, detail=f"from badmail, by {actor}")
            for end in await self._ends(QueueId(job_id.partition("-")[0]))
            if end.kind is DispositionKind.BADMAIL and f"{end.id}-{end.route}-{end.generation}" == job_id
        ]
        await self._log.write(ends)
        deleted = await self._queue.act(DeliveryVerb.BADMAIL_DELETE, QueueAction(job_id=job_id, actor=actor))
        return bool(deleted or ends)

    async def _ends(self, queue_id: QueueId) -> list[Disposition]:
        """The newest disposition of each recipient: as the stream has it, or as it was recorded before it aged out of that."""
        ends = {end.n: end for end in _recorded(queue_id, await self._trace.trace(queue_id))}
        for subject in await self._bus.subjects(DISPOSITIONS, f"disposition.{queue_id}.*"):
            if is_of_several(subject):
                continue  # delivered, all of them
            stored = await self._bus.last(DISPOSITIONS, subject)
            if stored is None:
                continue
            try:
                end = decode(stored.data, Disposition)
            except ValueError as error:
                raise ConflictError("unreadable", f"a disposition of the message cannot be read: {error}") from error
            ends[end.n] = end
        return list(ends.values())


def _recorded(queue_id: QueueId, trace: Trace) -> list[Disposition]:
    if trace.message is None:
        return []
    return [
        Disposition(
            id=queue_id,
            n=row.n,
            recipients_total=row.recipients_total,
            kind=DispositionKind(row.kind),
            gate=Gate(row.gate),
            accepted_at=trace.message.accepted_at,
            at=row.at,
            recipient=row.recipient,
            generation=row.generation,
            route=row.route,
            next_hop=row.next_hop,
            reply=row.reply,
            detail=row.detail,
            successor_id=row.successor_id,
        )
        for row in trace.dispositions
    ]
