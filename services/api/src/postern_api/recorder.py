"""Reads DISPOSITIONS and EVENTS into the database: many messages a transaction, acknowledged after its commit.

EVENTS holds trace events, which become the trace, and notices, which are handed to whoever makes alerts of them.

Writing is idempotent, so that a crash between commit and acknowledgement costs nothing but the work. While the database is away nothing
is acknowledged, and the streams keep what has not been read. What can never be read or stored is let go with an error in the log, so
that it does not come again for ever; it stays in its stream for its days.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from postern_api.messages.repository import TraceRepository
from postern_api.session_log.recording import read_sessions
from postern_api.store.database import is_away, refuses_value
from postern_core.broker.names import RECORDER_CONSUMER
from postern_core.bus import Bus, Collector, Delivered
from postern_core.bus.topology import DISPOSITIONS, EVENTS
from postern_core.contract import NotYetReadableError, decode
from postern_core.disposition import Disposition, DispositionKind, read_dispositions
from postern_core.events import EventBatch, TraceEvent
from postern_core.notices import Notice, NoticeBatch
from postern_core.session_log import SessionBatch

log: structlog.stdlib.BoundLogger = structlog.get_logger()

# Each commit syncs the disk, which the broker needs more, and costs as much CPU as some dozens of messages; and each message that comes by itself
# costs as much as its rows. So when many come they are left with the broker for a while.
_COLLECT_S: Final = 0.1
_REST_S: Final = 0.4
_MANY: Final = 20  # rows of a commit
_FULL: Final = 2000  # rows that are written at once: what is read behind a backlog waits for nothing
_DISPOSITIONS_AT_ONCE: Final = 3000  # in hand: those that are being written and those that come meanwhile
_BATCHES_AT_ONCE: Final = 50  # of up to 500 events
_PRUNE_EVERY_S: Final = 3600.0
_AGAIN_S: Final = 5.0  # until what could not be recorded is offered again
_NEWER_S: Final = 600.0  # until a record that we cannot read yet is offered again
_PRUNE_BATCH: Final = 1000
_ALERT: Final = "alert"
_NOTICE: Final = "notice"  # last token of the subject


@dataclass(frozen=True, slots=True)
class ToldNotices:
    """What one message of the bus tells. `key` is the same when it is told again."""

    key: bytes
    notices: tuple[Notice, ...]


TakeNotices = Callable[[Sequence[ToldNotices]], Awaitable[None]]


async def _heard_by_nobody(_: Sequence[ToldNotices]) -> None:
    """Where no alerts are made."""


@dataclass(frozen=True, slots=True)
class _Told:
    """One message of the bus, decoded. `unreadable`: why it is not."""

    by: Collector
    delivered: Delivered
    events: Sequence[TraceEvent] = ()
    ends: Sequence[Disposition] = ()
    notices: ToldNotices | None = None
    sessions: SessionBatch | None = None
    unreadable: ValueError | None = None

    @property
    def rows(self) -> int:
        told = len(self.notices.notices) if self.notices else 0
        told += len(self.sessions.records) if self.sessions else 0
        return len(self.events) + len(self.ends) + told


class Recorder:
    """`on_held` is called for every `held` disposition that was recorded (the quarantine index follows it). `take_notices` may be given the
    same notices again, and raises what a database raises."""

    def __init__(
        self,
        bus: Bus,
        repository: TraceRepository,
        *,
        trace_days: int,
        on_held: Callable[[], None],
        take_notices: TakeNotices = _heard_by_nobody,
    ) -> None:
        self._repository = repository
        self._take_notices = take_notices
        self._keep = timedelta(days=trace_days)
        self._on_held = on_held
        self._waiting: deque[_Told] = deque()
        self._waiting_rows = 0
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._dispositions = Collector(
            bus, DISPOSITIONS, RECORDER_CONSUMER, self._take_disposition, concurrency=_DISPOSITIONS_AT_ONCE
        )
        self._events = Collector(bus, EVENTS, RECORDER_CONSUMER, self._take_events, concurrency=_BATCHES_AT_ONCE)
        self._consumers = (self._dispositions, self._events)

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

    # -- decoding

    def _take_disposition(self, delivered: Delivered) -> None:
        try:
            self._add(_Told(self._dispositions, delivered, ends=read_dispositions(delivered.subject, delivered.data)))
        except ValueError as error:
            self._add(_Told(self._dispositions, delivered, unreadable=error))

    def _take_events(self, delivered: Delivered) -> None:
        try:
            if delivered.subject.endswith(f".{_NOTICE}"):
                self._add(_Told(self._events, delivered, notices=_notices(delivered)))
            elif delivered.subject.endswith(".session"):
                self._add(_Told(self._events, delivered, sessions=read_sessions(delivered.subject, delivered.data)))
            elif delivered.subject.endswith(f".{_ALERT}"):
                self._add(_Told(self._events, delivered))  # of this api itself: it stands in the database already
            else:
                self._add(_Told(self._events, delivered, events=decode(delivered.data, EventBatch).events))
        except ValueError as error:
            self._add(_Told(self._events, delivered, unreadable=error))

    # -- collecting

    def _add(self, told: _Told) -> None:
        self._waiting.append(told)
        self._waiting_rows += told.rows
        self._arrived.set()
        if self._waiting_rows >= _FULL:
            self._full.set()

    def _next(self) -> list[_Told]:
        batch, rows = [], 0
        while self._waiting and rows < _FULL:
            batch.append(self._waiting.popleft())
            rows += batch[-1].rows
        self._waiting_rows -= rows
        if not self._waiting:
            self._arrived.clear()
        if self._waiting_rows < _FULL:
            self._full.clear()
        return batch

    # -- recording

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COLLECT_S):
                    await self._full.wait()
            batch = self._next()
            error = await self._try(batch)
            rows = sum(told.rows for told in batch)
            for consumer in self._consumers:
                if rows < _MANY:
                    consumer.watch()
                else:
                    consumer.sweep(0 if rows >= _FULL else _REST_S)
            for told in batch:
                if error is not None and len(batch) > 1 and not is_away(error):
                    # one of them may be what the database refuses: it must not hold up the others
                    await self._settle(told, await self._try([told]))
                else:
                    await self._settle(told, error)

    async def _try(self, batch: Sequence[_Told]) -> Exception | None:
        events = [event for told in batch for event in told.events]
        ends = [end for told in batch for end in told.ends]
        notices = [told.notices for told in batch if told.notices is not None]
        sessions = [told.sessions for told in batch if told.sessions is not None]
        try:
            if events or ends or sessions:
                await self._repository.record(events, ends, sessions)
            if notices:
                await self._take_notices(notices)
        except (SQLAlchemyError, OSError, ValueError, OverflowError) as error:
            log.warning(
                "trace.record_failed",
                events=len(events),
                dispositions=len(ends),
                notices=len(notices),
                reason=f"{type(error).__name__}: {error}"[:500],
            )
            return error
        return None

    async def _settle(self, told: _Told, error: Exception | None) -> None:
        """Let it go after the commit, or when it can never be stored; else it comes again."""
        if told.unreadable is not None:
            await _unreadable(told.delivered, told.unreadable)
        elif error is None:
            await told.delivered.ack_unconfirmed()
            if any(end.kind is DispositionKind.HELD for end in told.ends):
                self._on_held()
        elif refuses_value(error):
            await _let_go(told.delivered, type(error).__name__)
        else:
            await told.delivered.retry(_AGAIN_S)
        told.by.done(told.delivered)

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


def _notices(delivered: Delivered) -> ToldNotices:
    """ValueError when they cannot be read."""
    service = delivered.subject.split(".")[1]  # the broker lets each service tell under its own name only
    told = decode(delivered.data, NoticeBatch).notices
    if any(notice.at.tzinfo is None for notice in told):
        raise ValueError("a notice's time has no zone")
    return ToldNotices(
        hashlib.sha256(delivered.data).digest(), tuple(msgspec.structs.replace(notice, service=service) for notice in told)
    )


async def _unreadable(delivered: Delivered, error: ValueError) -> None:
    """A newer program's record waits for the api that can read it; what nobody can read is let go."""
    if isinstance(error, NotYetReadableError):
        log.warning("trace.unreadable", subject=delivered.subject, tries=delivered.tries, reason=str(error))
        await delivered.retry(_NEWER_S)
    else:
        await _let_go(delivered, str(error))


async def _let_go(delivered: Delivered, reason: str) -> None:
    log.error("trace.let_go", subject=delivered.subject, sequence=delivered.stream_sequence, reason=reason)
    await delivered.ack_unconfirmed()
