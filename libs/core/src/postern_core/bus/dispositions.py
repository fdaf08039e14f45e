"""Writes and looks up dispositions (docs/architecture.md, rule 7: done is written before it is let go)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final, TypeVar

import msgspec

from postern_core.bus.connection import Bus, Stored
from postern_core.bus.publishing import unavailable
from postern_core.bus.topology import DISPOSITIONS, disposition_subject
from postern_core.contract import decode
from postern_core.disposition import Disposition
from postern_core.envelope import Recipient
from postern_core.ids import QueueId

T = TypeVar("T")

_AT_ONCE: Final = (
    200  # in flight for one message: those of ten thousand recipients at once would time out together, and again at each retry
)


class DispositionLog:
    """Stream DISPOSITIONS, as its writers see it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def write(self, dispositions: Iterable[Disposition]) -> None:
        """Store all of them; returns after every acknowledgement. TransientError when one could not be stored (write all again)."""
        for some in _slices(dispositions):
            await asyncio.gather(*(self._write_one(disposition) for disposition in some))

    async def _write_one(self, disposition: Disposition) -> None:
        msg_id = f"{disposition.id}:{disposition.n}:{disposition.generation}:{disposition.kind}"
        subject = disposition_subject(disposition.id, disposition.n)
        await self._bus.publish(DISPOSITIONS, subject, msgspec.json.encode(disposition), msg_id)

    async def settled(self, queue_id: QueueId, recipients: Iterable[Recipient], generation: int) -> frozenset[int]:
        """Those `Recipient.n` that already have a final disposition of this generation or a later one. TransientError."""
        settled = set()
        async for n, stored in self._newest(queue_id, recipients):
            try:
                disposition = decode(stored.data, Disposition)
            except ValueError as error:
                # as good as no answer: whoever asks keeps the mail, until a program that can read it comes
                raise unavailable(f"disposition {stored.subject}: {error}") from error
            if disposition.kind.settles(disposition.generation, generation):
                settled.add(n)
        return frozenset(settled)

    async def known(self, queue_id: QueueId, recipients: Iterable[Recipient]) -> frozenset[int]:
        """Those `Recipient.n` that have a disposition of any kind. TransientError."""
        return frozenset([n async for n, _ in self._newest(queue_id, recipients)])

    async def _newest(self, queue_id: QueueId, recipients: Iterable[Recipient]) -> AsyncIterator[tuple[int, Stored]]:
        for some in _slices(recipients):
            found = await asyncio.gather(
                *(self._bus.last(DISPOSITIONS, disposition_subject(queue_id, recipient.n)) for recipient in some)
            )
            for recipient, stored in zip(some, found, strict=True):
                if stored is not None:
                    yield recipient.n, stored


def _slices(items: Iterable[T]) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(itertools.islice(left, _AT_ONCE)):
        yield some
