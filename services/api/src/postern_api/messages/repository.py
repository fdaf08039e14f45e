"""The trace in the database. Writing is idempotent and takes any order: the bus may tell things twice, late, or the other way round.

The disposition with the highest (generation, is_final) counts, the later one among equals; every one of them stays in the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Table, and_, delete, exists, func, select

from postern_api.messages.recording import HISTORY, Writer, read_steps
from postern_api.messages.records import DispositionRow, EventRow, MessageRow, Trace
from postern_api.session_log.recording import SessionLogWriter
from postern_api.store.database import Database
from postern_api.store.models import dispositions, messages, steps
from postern_core.disposition import Disposition, DispositionKind
from postern_core.events import TraceEvent
from postern_core.session_log import SessionBatch


class TraceRepository:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer = Writer(database)
        self._session_log = SessionLogWriter(database)

    async def record(
        self, told: Sequence[TraceEvent], ends: Sequence[Disposition], sessions: Sequence[SessionBatch] = ()
    ) -> None:
        """Write all of it in one transaction, the session log with the trace. SQLAlchemyError, OSError, ValueError or OverflowError when that fails: then nothing was
        written."""
        async with self._database.write() as connection:
            await self._writer.write(connection, told, ends)
            await self._session_log.write(connection, sessions)

    async def trace(self, queue_id: str) -> Trace:
        """All that is known of one message."""
        async with self._database.read() as connection:
            message = (await connection.execute(select(messages).where(messages.c.id == queue_id))).first()
            told = (await connection.execute(select(steps.c.told).where(steps.c.queue_id == queue_id))).scalars().all()
            ends = await connection.execute(
                select(dispositions).where(dispositions.c.queue_id == queue_id).order_by(dispositions.c.n)
            )
            rows = [EventRow(*step) for step in read_steps(told)]
            return Trace(
                message=MessageRow.of(message) if message else None,
                events=[row for row in rows if row.kind != HISTORY],
                history=[row for row in rows if row.kind == HISTORY],
                dispositions=[DispositionRow.of(row) for row in ends],
            )

    async def page(
        self,
        *,
        after: str,
        limit: int,
        sender: str = "",
        recipient: str = "",
        kind: DispositionKind | None = None,
        open_only: bool,
    ) -> list[MessageRow]:
        """Newest first, those older than `after`, that fit all filters."""
        query = select(messages)
        if after:
            query = query.where(messages.c.id < after)
        if sender:
            query = query.where(messages.c.reverse_path.icontains(sender, autoescape=True))
        if recipient:
            query = query.where(_has_end(dispositions.c.recipient.icontains(recipient, autoescape=True)))
        if kind is not None:
            query = query.where(_has_end(dispositions.c.kind == kind.value))
        if open_only:
            query = query.where(is_open())
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(messages.c.id.desc()).limit(limit))
        return [MessageRow.of(row) for row in rows]

    async def ends_of(self, ids: Sequence[str]) -> dict[str, list[DispositionRow]]:
        """The dispositions that count, by message."""
        found: dict[str, list[DispositionRow]] = {queue_id: [] for queue_id in ids}
        query = select(dispositions).where(dispositions.c.queue_id.in_(ids)).order_by(dispositions.c.queue_id, dispositions.c.n)
        async with self._database.read() as connection:
            for row in await connection.execute(query):
                found[row.queue_id].append(DispositionRow.of(row))
        return found

    async def prune(self, older_than: datetime, limit: int) -> int:
        """Forget up to `limit` messages that were accepted and came to their end before then; held mail, badmail and open mail stay.
        Returns how many."""
        kept = _has_end(dispositions.c.kind.in_((DispositionKind.HELD.value, DispositionKind.BADMAIL.value)))
        lately = _has_end(dispositions.c.at >= older_than)  # it may have been held for long, and released yesterday
        settled = select(messages.c.id).where(messages.c.accepted_at < older_than, ~is_open(), ~kept, ~lately).limit(limit)
        async with self._database.write() as connection:
            ids = [row.id for row in await connection.execute(settled)]
            for table, column in _OF_A_MESSAGE:
                await connection.execute(delete(table).where(column.in_(ids)))
            # steps that never belonged to a message that we know of
            stray = and_(steps.c.at < older_than, ~exists().where(messages.c.id == steps.c.queue_id))
            await connection.execute(delete(steps).where(stray))
        return len(ids)


_OF_A_MESSAGE: Final[tuple[tuple[Table, ColumnElement[str]], ...]] = (
    (steps, steps.c.queue_id),
    (dispositions, dispositions.c.queue_id),
    (messages, messages.c.id),
)


def is_open() -> ColumnElement[bool]:
    """A message with recipients that have not come to an end."""
    return messages.c.final < func.coalesce(messages.c.recipients_total, 1)


def _has_end(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(dispositions.c.queue_id == messages.c.id, condition)
