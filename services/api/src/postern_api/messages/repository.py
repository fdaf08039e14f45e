"""The trace in the database. Writing is idempotent and takes any order: the bus may tell things twice, late, or the other way round.

The disposition with the highest (generation, is_final) counts, the later one among equals; every one of them stays in the history.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Table, and_, case, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from postern_api.messages.records import DispositionRow, EventRow, MessageRow, Trace
from postern_api.store.database import Database
from postern_api.store.models import dispositions, events, messages
from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Gate
from postern_core.events import EventKind, TraceEvent
from postern_core.ids import accepted_at, parse_queue_id

HISTORY: Final = "disposition"  # kind of those rows of table events that are past and present dispositions
_IN_ONE_STATEMENT: Final = 500  # bound parameters are limited
_MOST_RECIPIENTS: Final = 1_000_000
_MOST_BYTES: Final = 2**50


class TraceRepository:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, told: Sequence[TraceEvent], ends: Sequence[Disposition]) -> None:
        """Write all of it in one transaction. SQLAlchemyError or OSError when that fails: then nothing was written."""
        accepted = [event for event in told if event.kind is EventKind.ACCEPTED]
        # in one order everywhere, so that two replicas do not wait for each other in a circle
        ends = sorted(ends, key=lambda end: (end.id, end.n))
        successors = [end for end in ends if is_queue_id(end.successor_id)]
        rows = [*map(_accepted, accepted), *map(_implied, ends), *map(_successor, successors)]
        rows.sort(key=lambda row: str(row["id"]))
        ids = list(dict.fromkeys(str(row["id"]) for row in rows))
        known = set(ids)
        only_mentioned = {event.id: event for event in told if event.id not in known and is_queue_id(event.id)}
        async with self._database.write() as connection:
            await self._put_messages(connection, rows)
            await self._put_mentioned(connection, [_mentioned(only_mentioned[each]) for each in sorted(only_mentioned)])
            await self._put_history([_event(each) for each in told] + [_history(end) for end in ends], connection)
            await self._put_ends(connection, ends)
            await self._count_final(connection, ids)

    async def _put_messages(self, connection: AsyncConnection, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        insert = self._database.insert(messages)
        known = ("reverse_path", "recipients_total", "size_bytes", "client")
        changes: dict[str, ColumnElement[Any]] = {name: func.coalesce(messages.c[name], insert.excluded[name]) for name in known}
        for name in ("gate", "accepted_at"):  # of a message that was only mentioned, this is the first that is known
            changes[name] = case((messages.c.gate == "", insert.excluded[name]), else_=messages.c[name])
        await connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=changes), rows)

    async def _put_mentioned(self, connection: AsyncConnection, rows: list[dict[str, Any]]) -> None:
        """Messages of which a step was told and no acceptance: it got lost, or comes later."""
        if rows:
            await connection.execute(self._database.insert(messages).on_conflict_do_nothing(index_elements=["id"]), rows)

    async def _put_history(self, rows: list[dict[str, Any]], connection: AsyncConnection) -> None:
        if rows:
            await connection.execute(self._database.insert(events).on_conflict_do_nothing(index_elements=["digest"]), rows)

    async def _put_ends(self, connection: AsyncConnection, ends: Sequence[Disposition]) -> None:
        if not ends:
            return
        insert = self._database.insert(dispositions)
        new, old = insert.excluded, dispositions.c
        changes = {column.name: new[column.name] for column in dispositions.columns if not column.primary_key}
        counts = or_(new.standing > old.standing, and_(new.standing == old.standing, new.at > old.at))
        upsert = insert.on_conflict_do_update(index_elements=["queue_id", "n"], set_=changes, where=counts)
        await connection.execute(upsert, [_end(end) for end in ends])

    async def _count_final(self, connection: AsyncConnection, ids: list[str]) -> None:
        final = (
            select(func.count())
            .select_from(dispositions)
            .where(dispositions.c.queue_id == messages.c.id, dispositions.c.standing % 2 == 1)
            .scalar_subquery()
        )
        for start in range(0, len(ids), _IN_ONE_STATEMENT):
            some = ids[start : start + _IN_ONE_STATEMENT]
            await connection.execute(update(messages).where(messages.c.id.in_(some)).values(final=final))

    async def trace(self, queue_id: str) -> Trace:
        """All that is known of one message."""
        async with self._database.read() as connection:
            message = (await connection.execute(select(messages).where(messages.c.id == queue_id))).first()
            steps = await connection.execute(
                select(events).where(events.c.queue_id == queue_id).order_by(events.c.at, events.c.digest)
            )
            ends = await connection.execute(
                select(dispositions).where(dispositions.c.queue_id == queue_id).order_by(dispositions.c.n)
            )
            rows = [EventRow(row.kind, row.at, row.service, msgspec.json.decode(row.fields)) for row in steps]
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
            # events that never belonged to a message that we know of
            stray = and_(events.c.at < older_than, ~exists().where(messages.c.id == events.c.queue_id))
            await connection.execute(delete(events).where(stray))
        return len(ids)


_OF_A_MESSAGE: Final[tuple[tuple[Table, ColumnElement[str]], ...]] = (
    (events, events.c.queue_id),
    (dispositions, dispositions.c.queue_id),
    (messages, messages.c.id),
)


def is_open() -> ColumnElement[bool]:
    """A message with recipients that have not come to an end."""
    return messages.c.final < func.coalesce(messages.c.recipients_total, 1)


def is_queue_id(text: str) -> bool:
    try:
        parse_queue_id(text)
    except ValueError:
        return False
    return True


def _has_end(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(dispositions.c.queue_id == messages.c.id, condition)


def _text(value: object) -> str:
    """PostgreSQL's text holds no NUL."""
    return str(value).replace("\0", "\ufffd")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()  # a NUL is \u0000 in there, which is text


def _accepted(event: TraceEvent) -> dict[str, Any]:
    fields = event.fields
    total, size = fields.get("recipients"), fields.get("size_bytes")
    return {
        "id": event.id,
        "gate": _text(fields.get("gate", "")),
        "accepted_at": event.at,
        "reverse_path": _text(fields.get("reverse_path", "")),
        "recipients_total": total if isinstance(total, int) and 0 < total < _MOST_RECIPIENTS else None,
        "size_bytes": size if isinstance(size, int) and 0 <= size < _MOST_BYTES else None,
        "client": _text(fields.get("client", "")),
        "final": 0,
    }


def _mentioned(event: TraceEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "gate": "",
        "accepted_at": accepted_at(event.id),
        "reverse_path": None,
        "recipients_total": None,
        "size_bytes": None,
        "client": None,
        "final": 0,
    }


def _implied(end: Disposition) -> dict[str, Any]:
    return {
        "id": end.id,
        "gate": end.gate.value,
        "accepted_at": end.accepted_at,
        "reverse_path": None,
        "recipients_total": end.recipients_total,
        "size_bytes": None,
        "client": None,
        "final": 0,
    }


def _successor(end: Disposition) -> dict[str, Any]:
    """What Postern wrote in place of the message, an NDR or a forwarded copy: it has one recipient, and is known by this disposition even
    if nobody told of it or the telling got lost."""
    return {
        "id": end.successor_id,
        "gate": Gate.INTERNAL.value,
        "accepted_at": end.at,
        "reverse_path": None,
        "recipients_total": 1,
        "size_bytes": None,
        "client": None,
        "final": 0,
    }


def _event(event: TraceEvent) -> dict[str, Any]:
    fields = _json(event.fields)
    return _history_row(event.id, event.kind.value, event.at, event.service, fields)


def _history(end: Disposition) -> dict[str, Any]:
    return _history_row(end.id, HISTORY, end.at, "", _json(end))


def _history_row(queue_id: str, kind: str, at: datetime, service: str, fields: str) -> dict[str, Any]:
    digest = hashlib.blake2b(f"{queue_id}\n{kind}\n{at.isoformat()}\n{service}\n{fields}".encode(), digest_size=16).hexdigest()
    return {"digest": digest, "queue_id": queue_id, "kind": kind, "at": at, "service": _text(service), "fields": fields}


def _end(end: Disposition) -> dict[str, Any]:
    return {
        "queue_id": end.id,
        "n": end.n,
        "standing": 2 * end.generation + end.kind.is_final,
        "generation": end.generation,
        "kind": end.kind.value,
        "gate": end.gate.value,
        "at": end.at,
        "recipient": _text(end.recipient),
        "recipients_total": end.recipients_total,
        "route": _text(end.route),
        "next_hop": _text(end.next_hop),
        "reply": _text(end.reply),
        "detail": _text(end.detail),
        "successor_id": _text(end.successor_id),
    }
