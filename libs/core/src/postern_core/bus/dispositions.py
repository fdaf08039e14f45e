"""Writes and looks up dispositions (DESIGN rule 7: done is written before it is let go)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from postern_core.bus.connection import Bus
from postern_core.bus.publishing import unavailable
from postern_core.bus.topology import DISPOSITIONS, disposition_subject
from postern_core.contract import decode
from postern_core.disposition import Disposition
from postern_core.envelope import Recipient
from postern_core.ids import QueueId


class DispositionLog:
    """Stream DISPOSITIONS, as its writers see it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def write(self, dispositions: Iterable[Disposition]) -> None:
        """Store all of them; returns after every acknowledgement. TransientError when one could not be stored (write all again)."""
        await asyncio.gather(*(self._write_one(disposition) for disposition in dispositions))

    async def _write_one(self, disposition: Disposition) -> None:
        msg_id = f"{disposition.id}:{disposition.n}:{disposition.generation}:{disposition.kind}"
        subject = disposition_subject(disposition.id, disposition.n)
        await self._bus.publish(DISPOSITIONS, subject, msgspec.json.encode(disposition), msg_id)

    async def settled(self, queue_id: QueueId, recipients: Iterable[Recipient], generation: int) -> frozenset[int]:
        """Those `Recipient.n` that already have a final disposition of this generation or a later one. TransientError."""
        wanted = [recipient.n for recipient in recipients]
        found = await asyncio.gather(*(self._bus.last(DISPOSITIONS, disposition_subject(queue_id, n)) for n in wanted))
        settled = set()
        for n, stored in zip(wanted, found, strict=True):
            if stored is None:
                continue
            try:
                disposition = decode(stored.data, Disposition)
            except ValueError as error:
                # as good as no answer: whoever asks keeps the mail, until a program that can read it comes
                raise unavailable(f"disposition {stored.subject}: {error}") from error
            if disposition.kind.settles(disposition.generation, generation):
                settled.add(n)
        return frozenset(settled)
