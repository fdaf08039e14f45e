"""What is told of messages as rows of the trace, and the statements that write them. Pure, but for `Writer`.

A message gets one row of table `messages` and one of `steps` from each transaction, however much is told of it, since rows are what the
database's time goes by. Statements are compiled once and rows are bound as the driver stores them: the general way costs more than that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Integer, Text, and_, bindparam, case, func, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from postern_api.store.database import Database, Prepared
from postern_api.store.models import dispositions, messages, steps
from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Gate
from postern_core.events import EventKind, TraceEvent
from postern_core.ids import accepted_at, parse_queue_id

VERDICT: Final = "verdict"  # among the fields of `screened`
HISTORY: Final = "disposition"  # kind of those steps that are past and present dispositions
Step = tuple[str, datetime, str, dict[str, Any]]  # kind, when, service, fields

_MOST_RECIPIENTS: Final = 1_000_000
_MOST_BYTES: Final = 2**50
_MESSAGE: Final = ("id", "gate", "accepted_at", "reverse_path", "recipients_total", "size_bytes", "client", "final")
_STEPS: Final = ("queue_id", "digest", "at", "told")
# constants that are no parameters of a row
_EMPTY: Final = literal_column("''", Text)
_ONE, _TWO = literal_column("1", Integer), literal_column("2", Integer)
_END: Final = tuple(column.name for column in dispositions.columns)


class Known:
    """What a transaction tells about a message as such: of each thing, what came first."""

    __slots__ = ("accepted_at", "client", "gate", "recipients_total", "reverse_path", "size_bytes")

    def __init__(self, gate: str, at: datetime, recipients_total: int | None = None) -> None:
        self.gate = gate  # empty in what was only mentioned
        self.accepted_at = at
        self.recipients_total = recipients_total
        self.reverse_path: str | None = None
        self.size_bytes: int | None = None
        self.client: str | None = None


def known_messages(told: Sequence[TraceEvent], ends: Sequence[Disposition]) -> dict[str, Known]:
    """Every message that an acceptance or a disposition names, by its id: acceptances count before dispositions."""
    found: dict[str, Known] = {}
    for event in told:
        if event.kind is EventKind.ACCEPTED:
            _take_acceptance(found, event)
    for end in ends:
        known = found.get(end.id)
        if known is None:
            found[end.id] = Known(end.gate.value, end.accepted_at, end.recipients_total)
        else:
            _take(known, end.gate.value, end.accepted_at, end.recipients_total)
    for end in ends:
        # What Postern wrote in place of the message, an NDR or a forwarded copy: it has one recipient, and is known by this disposition
        # even if nobody told of it or the telling got lost. How many a message has that was split off, its own ends say.
        if end.successor_id and is_queue_id(end.successor_id):
            total = None if end.kind is DispositionKind.SPLIT else 1
            known = found.get(end.successor_id)
            if known is None:
                found[end.successor_id] = Known(Gate.INTERNAL.value, end.at, total)
            else:
                _take(known, Gate.INTERNAL.value, end.at, total)
    return found


def mentioned_messages(told: Sequence[TraceEvent], known: dict[str, Known]) -> dict[str, Known]:
    """Messages of which a step was told and no acceptance: it got lost, or comes later."""
    ids = {event.id for event in told if event.id not in known}
    return {each: Known("", accepted_at(each)) for each in ids if is_queue_id(each)}


def _take(known: Known, gate: str, at: datetime, recipients_total: int | None) -> None:
    if not known.gate:
        known.gate, known.accepted_at = gate, at
    if known.recipients_total is None:
        known.recipients_total = recipients_total


def _take_acceptance(found: dict[str, Known], event: TraceEvent) -> None:
    fields = event.fields
    total, size = fields.get("recipients"), fields.get("size_bytes")
    known = found.get(event.id)
    if known is None:
        known = found[event.id] = Known(_text(fields.get("gate", "")), event.at)
    if known.recipients_total is None and isinstance(total, int) and 0 < total < _MOST_RECIPIENTS:
        known.recipients_total = total
    if known.size_bytes is None and isinstance(size, int) and 0 <= size < _MOST_BYTES:
        known.size_bytes = size
    if known.reverse_path is None:
        known.reverse_path = _text(fields.get("reverse_path", ""))
        known.client = _text(fields.get("client", ""))


def steps_of(told: Iterable[TraceEvent], ends: Iterable[Disposition]) -> dict[str, list[tuple[str, datetime, str, object]]]:
    """Steps and dispositions by message."""
    found: dict[str, list[tuple[str, datetime, str, object]]] = {}
    for event in told:
        fields = event.fields if event.verdict is None else event.fields | {VERDICT: event.verdict}
        found.setdefault(event.id, []).append((event.kind.value, event.at, event.service, fields))
    for end in ends:
        found.setdefault(end.id, []).append((HISTORY, end.at, "", end))
    return found


def read_steps(rows: Iterable[str]) -> list[Step]:
    """Each step once, in the order of time. What was told again, in other company, stands in several rows."""
    found = {msgspec.json.encode(step): step for told in rows for step in msgspec.json.decode(told, type=list[Step])}
    return [step for _, step in sorted(found.items(), key=lambda item: (item[1][1], item[0]))]


class Writer:
    """The statements, for either database."""

    def __init__(self, database: Database) -> None:
        self._stored = database.stored_time
        insert = database.insert(messages)
        new, old = insert.excluded, messages.c
        first = ("reverse_path", "recipients_total", "size_bytes", "client")
        changes: dict[str, ColumnElement[Any]] = {name: func.coalesce(old[name], new[name]) for name in first}
        for name in ("gate", "accepted_at"):  # of a message that was only mentioned, this is the first that is known
            changes[name] = case((old.gate == _EMPTY, new[name]), else_=old[name])
        self._put_messages = database.prepare(insert.on_conflict_do_update(index_elements=["id"], set_=changes), _MESSAGE)
        self._put_mentioned = database.prepare(insert.on_conflict_do_nothing(index_elements=["id"]), _MESSAGE)

        insert = database.insert(steps)
        self._put_steps = database.prepare(insert.on_conflict_do_nothing(index_elements=["queue_id", "digest"]), _STEPS)

        insert = database.insert(dispositions)
        new, old = insert.excluded, dispositions.c
        changes = {column.name: new[column.name] for column in dispositions.columns if not column.primary_key}
        counts = or_(new.standing > old.standing, and_(new.standing == old.standing, new.at > old.at))
        upsert = insert.on_conflict_do_update(index_elements=["queue_id", "n"], set_=changes, where=counts)
        self._put_ends = database.prepare(upsert, _END)

        final = select(func.count()).where(dispositions.c.queue_id == messages.c.id, dispositions.c.standing % _TWO == _ONE)
        count = update(messages).where(messages.c.id == bindparam("of")).values(final=final.scalar_subquery())
        self._count_final = database.prepare(count, ("of",))

    async def write(self, connection: AsyncConnection, told: Sequence[TraceEvent], ends: Sequence[Disposition]) -> None:
        """Write all of it, in one order everywhere, so that two replicas do not wait for each other in a circle."""
        ends = sorted(ends, key=lambda end: (end.id, end.n))
        known = known_messages(told, ends)
        await self._run(connection, self._put_messages, self._message_rows(known))
        await self._run(connection, self._put_mentioned, self._message_rows(mentioned_messages(told, known)))
        await self._run(connection, self._put_steps, self._step_rows(told, ends))
        await self._run(connection, self._put_ends, [self._end(end) for end in ends])
        # counted last, while the rows of these messages are ours
        await self._run(connection, self._count_final, [(each,) for each in dict.fromkeys(end.id for end in ends)])

    async def _run(self, connection: AsyncConnection, statement: Prepared, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            await statement.run(connection, rows)

    def _message_rows(self, found: dict[str, Known]) -> list[tuple[Any, ...]]:
        return [
            (
                each,
                known.gate,
                self._stored(known.accepted_at),
                known.reverse_path,
                known.recipients_total,
                known.size_bytes,
                known.client,
                0,
            )
            for each, known in sorted(found.items())
        ]

    def _step_rows(self, told: Sequence[TraceEvent], ends: Sequence[Disposition]) -> list[tuple[Any, ...]]:
        rows = []
        for queue_id, found in sorted(steps_of(told, ends).items()):
            text = msgspec.json.encode(found)  # a NUL is \u0000 in there, which PostgreSQL's text can hold
            digest = hashlib.blake2b(text, digest_size=16).digest()
            newest = found[0][1] if len(found) == 1 else max([step[1] for step in found])
            rows.append((queue_id, digest, self._stored(newest), text.decode()))
        return rows

    def _end(self, end: Disposition) -> tuple[Any, ...]:
        return (
            end.id,
            end.n,
            2 * end.generation + end.kind.is_final,
            end.generation,
            end.kind.value,
            end.gate.value,
            self._stored(end.at),
            _text(end.recipient),
            end.recipients_total,
            _text(end.route),
            _text(end.next_hop),
            _text(end.reply),
            _text(end.detail),
            _text(end.successor_id),
        )


def is_queue_id(text: str) -> bool:
    try:
        parse_queue_id(text)
    except ValueError:
        return False
    return True


def _text(value: object) -> str:
    """PostgreSQL's text holds no NUL."""
    return str(value).replace("\0", "\ufffd")
