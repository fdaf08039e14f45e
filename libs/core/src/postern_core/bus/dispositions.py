"""Writes and looks up dispositions (docs/architecture.md, rule 7: done is written before it is let go).

Each has a subject that names its recipient. Only those that come by the hundred and at the same moment share a message, and so a publish and a
sync: `delivered`, at the first try, of messages that came in one batch and of several recipients of one message. They lie under the key of the
batch, which the job carries on, so that a look-up finds both kinds.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from postern_core.bus.connection import Bus, Stored
from postern_core.bus.publishing import unavailable
from postern_core.bus.topology import DISPOSITIONS, disposition_subject, dispositions_subject
from postern_core.disposition import Disposition, DispositionBatch, is_of_several, read_dispositions
from postern_core.envelope import Envelope, Recipient
from postern_core.ids import QueueId
from postern_core.job import Job

T = TypeVar("T")

_IN_ONE: Final = 100  # dispositions in a message
# in flight for one message: those of ten thousand recipients at once would time out together, and again at each retry
_AT_ONCE: Final = 200
# members of a batch are handed on side by side and end within a millisecond or two; it adds to the gap of RFC 1047, so no longer than that
_COLLECT_S: Final = 0.002


class DispositionLog:
    """Stream DISPOSITIONS, as its writers see it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._collecting: dict[str, _Collection] = {}  # by batch
        self._storing: set[asyncio.Task[None]] = set()  # or they could be collected

    async def write(self, dispositions: Iterable[Disposition], *, batch: str = "") -> None:
        """Store all of them, which are of one message; returns after every acknowledgement. TransientError when one could not be stored: write
        all of them again. With the key of a `batch` they share messages with whatever else is written of it at this moment."""
        written = list(dispositions)
        if not batch:
            for some in _slices(written, _AT_ONCE):
                await _all(self._store(one) for one in some)
            return
        collection = self._collecting.get(batch)
        if collection is None:
            collection = self._collecting[batch] = _Collection()
            storing = asyncio.create_task(self._collect(batch, collection), name="dispositions")
            self._storing.add(storing)
            storing.add_done_callback(self._storing.discard)
        await collection.add(written)

    async def _collect(self, batch: str, collection: _Collection) -> None:
        await asyncio.sleep(_COLLECT_S)
        del self._collecting[batch]
        try:
            await _all(self._store_together(batch, some) for some in _slices(collection.dispositions, _IN_ONE))
        except Exception as error:  # whatever it is, each of those who wait hears of it
            collection.settle(error)
        else:
            collection.settle(None)

    async def _store(self, one: Disposition) -> None:
        await self._bus.publish(DISPOSITIONS, disposition_subject(one.id, one.n), msgspec.json.encode(one), _name(one))

    async def _store_together(self, batch: str, some: Sequence[Disposition]) -> None:
        # a subject for each composition: none hides another when the newest of each is looked up
        digest = hashlib.blake2b("\n".join(map(_name, some)).encode(), digest_size=8).hexdigest()
        payload = msgspec.json.encode(DispositionBatch(dispositions=tuple(some)))
        await self._bus.publish(
            DISPOSITIONS, dispositions_subject(batch, len(some), digest), payload, f"{batch}:{digest}:dispositions"
        )

    async def settled(self, job: Job, recipients: Sequence[Recipient]) -> frozenset[int]:
        """Those `Recipient.n` that already have a final disposition of the job's generation or a later one. TransientError."""
        newest = await self._newest(job.queue_id, recipients, job.batch)
        return frozenset(n for n, end in newest.items() if end.kind.settles(end.generation, job.generation))

    async def known(self, envelope: Envelope, batch: str) -> dict[int, Disposition]:
        """The newest disposition of each `Recipient.n` that has one, of any kind. `batch` is the key of the batch that the message came in, if
        any. TransientError."""
        return await self._newest(envelope.id, envelope.recipients, batch)

    async def _newest(self, queue_id: QueueId, recipients: Sequence[Recipient], batch: str) -> dict[int, Disposition]:
        """The newest disposition of each recipient that has one, by its number."""
        wanted = {recipient.n for recipient in recipients}
        shared: list[str] = []  # nobody can guess the subjects of those that share a message
        for key in {batch, queue_id if len(wanted) > 1 else batch} - {""}:
            listed = await self._bus.subjects(DISPOSITIONS, f"disposition.{key}.*")
            shared += [subject for subject in listed if is_of_several(subject)]
        entries = await self._entries([disposition_subject(queue_id, n) for n in wanted])
        shared_entries = await self._entries(shared)
        if len(shared_entries) < len(shared):
            raise unavailable(f"{DISPOSITIONS} lists an entry about {queue_id} that it does not give")  # a replica that is behind
        found: dict[int, tuple[int, Disposition]] = {}
        for stored in entries + shared_entries:
            for end in _read(stored):
                if end.id == queue_id and end.n in wanted and (end.n not in found or found[end.n][0] < stored.sequence):
                    found[end.n] = stored.sequence, end
        return {n: end for n, (_, end) in found.items()}

    async def _entries(self, subjects: Sequence[str]) -> list[Stored]:
        """The newest of each subject that has one."""
        found: list[Stored] = []
        for some in _slices(subjects, _AT_ONCE):
            found += filter(None, await asyncio.gather(*(self._bus.last(DISPOSITIONS, subject) for subject in some)))
        return found


class _Collection:
    """What is written of one batch at the same moment. Each writer waits for a future of its own, so that one that is cancelled takes nothing from others."""

    def __init__(self) -> None:
        self.dispositions: list[Disposition] = []
        self._waiting: list[asyncio.Future[None]] = []

    def add(self, written: Iterable[Disposition]) -> asyncio.Future[None]:
        """Done when they are stored."""
        self.dispositions += written
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(stored)
        return stored

    def settle(self, error: Exception | None) -> None:
        for stored in self._waiting:
            if stored.done():  # cancelled
                continue
            if error is None:
                stored.set_result(None)
            else:
                stored.set_exception(error)


async def _all(storing: Iterable[Coroutine[Any, Any, None]]) -> None:
    """At once; one alone takes no task."""
    work = list(storing)
    if len(work) == 1:
        await work[0]
    else:
        await asyncio.gather(*work)


def _name(one: Disposition) -> str:
    return f"{one.id}:{one.n}:{one.generation}:{one.kind}"


def _read(stored: Stored) -> tuple[Disposition, ...]:
    try:
        return read_dispositions(stored.subject, stored.data)
    except ValueError as error:
        # as good as no answer: whoever asks keeps the mail, until a program that can read it comes
        raise unavailable(f"disposition {stored.subject}: {error}") from error


def _slices(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(itertools.islice(left, size)):
        yield some
