"""Sums over the trace. Counted are recipients, since each of them ends by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import func, literal, select, union_all

from postern_api.messages.repository import is_open
from postern_api.store.database import Database
from postern_api.store.models import dispositions, messages

_ACCEPTED: Final = "accepted"


class LedgerRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def totals(self, since: datetime | None) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
        """Accepted recipients by gate, and those that came to an end by (gate, kind); of messages accepted from `since` on."""
        total = func.sum(func.coalesce(messages.c.recipients_total, 1))
        accepted = select(messages.c.gate, literal(_ACCEPTED).label("kind"), total.label("number")).group_by(messages.c.gate)
        ends = (
            # by the gate of the message: the two sides of the balance are about the same messages
            select(messages.c.gate, dispositions.c.kind, func.count().label("number"))
            .join_from(dispositions, messages, dispositions.c.queue_id == messages.c.id)
            .where(dispositions.c.standing % 2 == 1)
            .group_by(messages.c.gate, dispositions.c.kind)
        )
        if since is not None:
            accepted = accepted.where(messages.c.accepted_at >= since)
            ends = ends.where(messages.c.accepted_at >= since)
        # one statement sees one state of the tables: what is recorded meanwhile cannot tip the balance
        async with self._database.read() as connection:
            rows = [(row.gate, row.kind, int(row.number)) for row in await connection.execute(union_all(accepted, ends))]
        by_gate = {gate: number for gate, kind, number in rows if kind == _ACCEPTED}
        return by_gate, {(gate, kind): number for gate, kind, number in rows if kind != _ACCEPTED}

    async def open_since(self, before: datetime, limit: int) -> tuple[int, list[str]]:
        """How many messages accepted before then are still open, and the oldest of them."""
        condition = (is_open(), messages.c.accepted_at < before)
        async with self._database.read() as connection:
            number = (await connection.execute(select(func.count()).select_from(messages).where(*condition))).scalar_one()
            rows = await connection.execute(
                select(messages.c.id).where(*condition).order_by(messages.c.accepted_at, messages.c.id).limit(limit)
            )
            return number, [row.id for row in rows]
