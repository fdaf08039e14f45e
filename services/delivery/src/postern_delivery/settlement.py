"""The end of recipients: dispositions, and the NDR or badmail entry that comes before them.

Order, so that a crash anywhere repeats a step instead of skipping one: the NDR (or badmail entry) is durable, then the disposition that
names it, then the caller lets the job go. A disposition for mail that a next hop has taken is written until it is stored, however
long the broker is away: the delivery cannot be undone, and forgetting it would make a second copy.
Standards: RFC 5321 sections 4.5.5, 6.1; RFC 3461 sections 4.1 (NOTIFY), 5.2.2 (relayed). docs/architecture.md, rule 7.
Known gap: a death, or a full OUTBOUND, right behind the disposition drops a notice of success.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog

from postern_core.bus import DispositionLog
from postern_core.counters import BY_ROUTE, CounterName, Counters
from postern_core.disposition import Disposition, DispositionKind
from postern_core.errors import TransientError
from postern_core.job import Job
from postern_delivery.badmail import BadmailStore
from postern_delivery.notices import Notices, may_be_answered, wants
from postern_delivery.outcome import Results

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_EVENTS: Final = {kind: f"recipient.{kind.value}" for kind in DispositionKind}
_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)  # the last one repeats


class Settlement:
    """See the module."""

    def __init__(self, dispositions: DispositionLog, notices: Notices, badmail: BadmailStore) -> None:
        self._dispositions = dispositions
        self._notices = notices
        self._badmail = badmail
        self.counters = Counters()

    async def delivered(self, job: Job, body: bytes | memoryview, results: Results) -> None:
        """Write down that a next hop took the mail for `results`; then tell who asked for it and hears of it from nobody else."""
        await self._record(job, results, DispositionKind.DELIVERED)
        told = [result for result in results if not result.peer_reports and wants(result.recipient, "SUCCESS")]
        if not told or not may_be_answered(job):
            return
        try:
            await self._notices.relayed(job, tuple(told), body)
        except TransientError as error:
            # the mail is delivered: a notice of that is not worth a second copy
            log.warning("relay_notice.dropped", id=job.queue_id, recipients=len(told), reason=error.reason)

    async def deleted(self, job: Job, results: Results, actor: str) -> None:
        """Write down that an administrator deleted the mail for `results`."""
        await self._record(
            job, results, DispositionKind.DELETED, detail=f"deleted from the queue by {actor or 'an administrator'}"
        )

    async def failed(
        self,
        job: Job,
        results: Results,
        inline: bytes | memoryview,
        body: bytes | memoryview,
        kind: DispositionKind,
        *,
        detail: str = "",
        maybe_duplicate: bool,
    ) -> None:
        """No further attempt for `results`: tell the sender, or make it badmail, then write it down as `kind` (bounced, expired).

        Raises TransientError when neither could be stored; nothing is written down then.
        """
        if not may_be_answered(job):
            reason = "undeliverable notice" if job.is_dsn else "undeliverable, and sent with a null reverse-path"
            await self._badmail.put(job, inline, results, reason)
            await self._record(job, results, DispositionKind.BADMAIL, detail=reason)
            return
        told = tuple(result for result in results if wants(result.recipient, "FAILURE"))
        untold = tuple(result for result in results if not wants(result.recipient, "FAILURE"))
        if told:
            ndr = await self._notices.failed(job, told, body, maybe_duplicate=maybe_duplicate)
            await self._record(job, told, kind, detail=detail, successor_id=ndr)
        if untold:
            asked = "the sender asked for no notice (NOTIFY)"
            await self._record(job, untold, kind, detail=f"{detail}; {asked}" if detail else asked)

    async def _record(
        self, job: Job, results: Results, kind: DispositionKind, *, detail: str = "", successor_id: str = ""
    ) -> None:
        envelope, now = job.envelope, datetime.now(UTC)
        dispositions = [
            Disposition(
                id=envelope.id,
                n=result.recipient.n,
                recipients_total=len(envelope.recipients),
                kind=kind,
                gate=envelope.gate,
                accepted_at=envelope.accepted_at,
                at=now,
                recipient=result.recipient.address,
                generation=job.generation,
                route=job.route,
                next_hop=result.next_hop,
                reply=result.reply,
                detail=detail,
                successor_id=successor_id,
            )
            for result in results
        ]
        tries = 0
        while True:
            try:
                await self._dispositions.write(dispositions, batch=job.batch if kind is DispositionKind.DELIVERED else "")
                break
            except TransientError as error:
                log.warning("disposition.postponed", id=job.queue_id, kind=kind.value, tries=tries + 1, reason=error.reason)
            except asyncio.CancelledError:
                # RFC 1047 in our own house: delivered, and not known to be written down
                log.warning("disposition.left_in_doubt", id=job.queue_id, kind=kind.value, recipients=len(dispositions))
                raise
            await asyncio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1
        self.counters.add(CounterName.SETTLED, f"{kind}{BY_ROUTE}{job.route}", len(dispositions))
        for disposition in dispositions:
            log.info(
                _EVENTS[kind],
                id=job.queue_id,
                recipient=disposition.recipient,
                route=job.route,
                next_hop=disposition.next_hop,
                reply=disposition.reply,
                successor_id=successor_id,
            )
