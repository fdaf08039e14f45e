"""Reads DISPOSITIONS and EVENTS into the database: many messages a transaction, acknowledged after its commit.

Writing is idempotent, so that a crash between commit and acknowledgement costs nothing but the work. While the database is away nothing
is acknowledged, and the streams keep what has not been read. What can never be read or stored is let go with an error in the log, so
that it does not come again for ever; it stays in its stream for its days.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from postern_api.messages.repository import TraceRepository
from postern_api.store.database import is_away, refuses_value
from postern_core.bus import Bus, Consumer, Delivered
from postern_core.bus.topology import DISPOSITIONS, EVENTS, RECORDER_CONSUMER
from postern_core.contract import UnknownVersionError, decode
from postern_core.disposition import Disposition, DispositionKind, read_dispositions
from postern_core.errors import TransientError
from postern_core.events import EventBatch, TraceEvent

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_COLLECT_S: Final = 0.1  # each commit syncs the disk, which the broker needs more
_BATCH: Final = 400
_CONCURRENCY: Final = 400
_PRUNE_EVERY_S: Final = 3600.0
_NEWER_S: Final = 600.0  # until a record of a version that we do not know is offered again
_PRUNE_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class _Waiting:
    events: Sequence[TraceEvent]
    ends: Sequence[Disposition]
    written: asyncio.Future[Exception | None]  # why it was not


class Recorder:
    """`on_held` is called for every `held` disposition that was recorded (the quarantine index follows it)."""

    def __init__(self, bus: Bus, repository: TraceRepository, *, trace_days: int, on_held: Callable[[], None]) -> None:
        self._repository = repository
        self._keep = timedelta(days=trace_days)
        self._on_held = on_held
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._consumers = (
            Consumer(bus, DISPOSITIONS, RECORDER_CONSUMER, self._disposition, concurrency=_CONCURRENCY),
            Consumer(bus, EVENTS, RECORDER_CONSUMER, self._event_batch, concurrency=_CONCURRENCY),
        )

    @property
    def in_flight(self) -> int:
        return sum(consumer.in_flight for consumer in self._consumers)

    async def run(self, stop: asyncio.Event, drain_s: float) -> None:
        """Record until `stop`; then write and acknowledge what is in hand."""
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(), name="recorder-writer")
            pruner = tasks.create_task(self._prune(stop), name="recorder-pruner")
            readers = [tasks.create_task(consumer.run(stop, drain_s), name=consumer.name) for consumer in self._consumers]
            await asyncio.wait(readers)
            await pruner
            writer.cancel()

    async def _disposition(self, delivered: Delivered) -> None:
        try:
            ends = read_dispositions(delivered.subject, delivered.data)
        except ValueError as error:
            await _unreadable(delivered, error)
            return
        if not await self._written((), ends, delivered):
            return
        await delivered.ack_unconfirmed()
        if any(end.kind is DispositionKind.HELD for end in ends):
            self._on_held()

    async def _event_batch(self, delivered: Delivered) -> None:
        try:
            batch = decode(delivered.data, EventBatch)
        except ValueError as error:
            await _unreadable(delivered, error)
            return
        if await self._written(batch.events, (), delivered):
            await delivered.ack_unconfirmed()

    async def _written(self, events: Sequence[TraceEvent], ends: Sequence[Disposition], delivered: Delivered) -> bool:
        """Returns after the commit; False when it could never be stored, and was let go. TransientError when it failed this time: the
        message comes again."""
        waiting = _Waiting(events, ends, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(waiting)
        error = await waiting.written
        if error is None:
            return True
        if refuses_value(error):
            await _let_go(delivered, type(error).__name__)
            return False
        raise TransientError(451, "4.3.0", "not recorded", reason=f"not recorded: {type(error).__name__}") from error

    async def _write(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            await asyncio.sleep(_COLLECT_S)
            while len(batch) < _BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            error = await self._try(batch)
            if error is not None and len(batch) > 1 and not is_away(error):
                # one of them may be what the database refuses: it must not hold up the others
                for each in batch:
                    _settle([each], await self._try([each]))
            else:
                _settle(batch, error)

    async def _try(self, batch: Sequence[_Waiting]) -> Exception | None:
        events = [event for each in batch for event in each.events]
        ends = [end for each in batch for end in each.ends]
        try:
            await self._repository.record(events, ends)
        except (SQLAlchemyError, OSError, ValueError, OverflowError) as error:
            log.warning(
                "trace.record_failed", events=len(events), dispositions=len(ends), reason=f"{type(error).__name__}: {error}"[:500]
            )
            return error
        return None

    async def _prune(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                while await self._repository.prune(datetime.now(UTC) - self._keep, _PRUNE_BATCH) == _PRUNE_BATCH:
                    if stop.is_set():
                        return
            except (SQLAlchemyError, OSError) as error:
                log.warning("trace.prune_failed", reason=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _PRUNE_EVERY_S)


def _settle(batch: Sequence[_Waiting], error: Exception | None) -> None:
    for each in batch:
        if not each.written.done():  # else its handler was cancelled: the message comes again
            each.written.set_result(error)


async def _unreadable(delivered: Delivered, error: ValueError) -> None:
    """A newer program's record waits for the api that can read it; what nobody can read is let go."""
    if isinstance(error, UnknownVersionError):
        log.warning("trace.unreadable", subject=delivered.subject, tries=delivered.tries, reason=str(error))
        await delivered.retry(_NEWER_S)
    else:
        await _let_go(delivered, str(error))


async def _let_go(delivered: Delivered, reason: str) -> None:
    log.error("trace.let_go", subject=delivered.subject, sequence=delivered.stream_sequence, reason=reason)
    await delivered.ack_unconfirmed()
