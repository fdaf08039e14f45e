"""Sums over the trace, and what of it must have a counterpart on the bus. Counted are recipients, since each of them ends by itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, String, func, literal, literal_column, select, tuple_, union_all

from postern_api.messages.repository import is_open
from postern_api.store.database import Database
from postern_api.store.models import dispositions, messages, steps
from postern_core.disposition import DispositionKind

_ACCEPTED: Final = "accepted"
_IN_ONE_STATEMENT: Final = 500  # bound parameters are limited
_RECIPIENTS: Final = func.coalesce(messages.c.recipients_total, 1)
_ON_THE_BUS: Final = (DispositionKind.HELD.value, DispositionKind.BADMAIL.value, DispositionKind.RELEASED.value)

Hour = tuple[datetime, str]  # its beginning in UTC, and the gate


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A message of which the number of recipients that came to an end is not that of its recipients."""

    id: str
    recipients: int
    ended: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A disposition in force that says that the mail lies somewhere: held, badmail or released."""

    queue_id: str
    n: int
    kind: str
    job_id: str


class LedgerRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def totals(self, since: datetime | None) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
        """Accepted recipients by gate, and those that came to an end by (gate, kind); of messages accepted from `since` on."""
        rows = await self._sums([], [messages.c.accepted_at >= since] if since is not None else [])
        by_gate = {row.gate: int(row.number) for row in rows if row.kind == _ACCEPTED}
        return by_gate, {(row.gate, row.kind): int(row.number) for row in rows if row.kind != _ACCEPTED}

    async def hours(self, since: datetime, until: datetime) -> tuple[dict[Hour, int], dict[tuple[Hour, str], int]]:
        """As `totals`, by the hour (UTC) in which the mail was accepted; of messages accepted from `since` on and before `until`."""
        condition = [messages.c.accepted_at >= since, messages.c.accepted_at < until]
        accepted: dict[Hour, int] = {}
        ended: dict[tuple[Hour, str], int] = {}
        for row in await self._sums([self._hour().label("hour")], condition):
            hour = (datetime.strptime(row.hour, "%Y-%m-%d %H").replace(tzinfo=UTC), row.gate)
            if row.kind == _ACCEPTED:
                accepted[hour] = int(row.number)
            else:
                ended[hour, row.kind] = int(row.number)
        return accepted, ended

    async def _sums(self, keys: Sequence[ColumnElement[Any]], conditions: Sequence[ColumnElement[bool]]) -> Sequence[Row[Any]]:
        total = func.sum(_RECIPIENTS)
        accepted = select(*keys, messages.c.gate, literal(_ACCEPTED).label("kind"), total.label("number"))
        ends = (
            # by the gate of the message: the two sides of the balance are about the same messages
            select(*keys, messages.c.gate, dispositions.c.kind, func.count().label("number"))
            .join_from(dispositions, messages, dispositions.c.queue_id == messages.c.id)
            .where(dispositions.c.standing % 2 == 1)
        )
        accepted = accepted.where(*conditions).group_by(*keys, messages.c.gate)
        ends = ends.where(*conditions).group_by(*keys, messages.c.gate, dispositions.c.kind)
        # one statement sees one state of the tables: what is recorded meanwhile cannot tip the balance
        async with self._database.read() as connection:
            return (await connection.execute(union_all(accepted, ends))).all()

    def _hour(self) -> ColumnElement[str]:
        # constants stand in the text: the same expression groups, which two parameters would not be to PostgreSQL
        at = messages.c.accepted_at
        if self._database.is_sqlite:
            return func.strftime(literal_column("'%Y-%m-%d %H'"), at, type_=String)
        return func.to_char(func.timezone(literal_column("'UTC'"), at), literal_column("'YYYY-MM-DD HH24'"), type_=String)

    async def open_since(self, before: datetime, limit: int) -> tuple[int, list[str]]:
        """How many messages accepted before then are still open, and the oldest of them."""
        condition = (is_open(), messages.c.accepted_at < before)
        async with self._database.read() as connection:
            number = (await connection.execute(select(func.count()).select_from(messages).where(*condition))).scalar_one()
            rows = await connection.execute(
                select(messages.c.id).where(*condition).order_by(messages.c.accepted_at, messages.c.id).limit(limit)
            )
            return number, [row.id for row in rows]

    # -- what a verification compares with the bus; pages end with one that is shorter than `limit`

    async def unfinished_count(self) -> int:
        """How many messages `unfinished` has in all."""
        query = select(func.count()).select_from(messages).where(messages.c.final != _RECIPIENTS)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one()

    async def unfinished(self, *, after: str, limit: int) -> list[Unfinished]:
        """Messages behind this id, in the order of ids, that are open or have more ends than recipients."""
        query = (
            select(messages.c.id, _RECIPIENTS.label("recipients"), messages.c.final)
            .where(messages.c.id > after, messages.c.final != _RECIPIENTS)
            .order_by(messages.c.id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [Unfinished(row.id, row.recipients, row.final) for row in await connection.execute(query)]

    async def standings(self, *, after: tuple[str, int], limit: int) -> list[Standing]:
        """Dispositions in force behind this (queue id, n), in that order, that say where the mail lies."""
        key = (dispositions.c.queue_id, dispositions.c.n)
        query = (
            select(
                dispositions.c.queue_id, dispositions.c.n, dispositions.c.kind, dispositions.c.route, dispositions.c.generation
            )
            .where(tuple_(*key) > after, dispositions.c.kind.in_(_ON_THE_BUS))
            .order_by(*key)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [
                Standing(row.queue_id, row.n, row.kind, f"{row.queue_id}-{row.route}-{row.generation}")
                for row in await connection.execute(query)
            ]

    async def known(self, queue_ids: Collection[str]) -> set[str]:
        """Those of `queue_ids` that the ledger has a message of."""
        wanted, found = list(queue_ids), set[str]()
        async with self._database.read() as connection:
            for start in range(0, len(wanted), _IN_ONE_STATEMENT):
                some = wanted[start : start + _IN_ONE_STATEMENT]
                found |= {row.id for row in await connection.execute(select(messages.c.id).where(messages.c.id.in_(some)))}
        return found

    async def newest_event_at(self) -> datetime | None:
        """When the newest recorded step was taken, by the clock of whoever told it."""
        query = select(steps.c.at).order_by(steps.c.at.desc()).limit(1)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar()
