"""The index of the quarantine: what a list shows and is searched by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, delete, func, select

from postern_api.store.database import Database
from postern_api.store.models import quarantine


@dataclass(frozen=True, slots=True)
class HeldRow:
    """One held message as the index has it."""

    queue_id: str
    sequence: int
    generation: int
    gate: str
    accepted_at: datetime
    reverse_path: str
    recipients: list[str]
    subject: str
    reason: str
    rule_id: str
    rule_name: str
    detail: str
    size_bytes: int
    client: str


class QuarantineIndex:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, rows: Sequence[HeldRow]) -> None:
        """Add rows, or bring them up to date."""
        if not rows:
            return
        insert = self._database.insert(quarantine)
        changes = {column.name: insert.excluded[column.name] for column in quarantine.columns if not column.primary_key}
        statement = insert.on_conflict_do_update(index_elements=["queue_id"], set_=changes)
        async with self._database.write() as connection:
            await connection.execute(statement, [_values(row) for row in sorted(rows, key=lambda row: row.queue_id)])

    async def remove(self, queue_ids: Iterable[str]) -> None:
        ids = list(queue_ids)
        async with self._database.write() as connection:
            for start in range(0, len(ids), 500):
                await connection.execute(delete(quarantine).where(quarantine.c.queue_id.in_(ids[start : start + 500])))

    async def ids(self, *, reason: str = "") -> set[str]:
        """Of all rows, or of those that are held for `reason`."""
        query = select(quarantine.c.queue_id)
        if reason:
            query = query.where(quarantine.c.reason == reason)
        async with self._database.read() as connection:
            return {row.queue_id for row in await connection.execute(query)}

    async def extent(self) -> tuple[int, int]:
        """How many rows there are, and the last sequence among them."""
        query = select(func.count(), func.coalesce(func.max(quarantine.c.sequence), 0))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one()
        return int(row[0]), int(row[1])

    async def page(
        self,
        *,
        after: str,
        limit: int,
        sender: str = "",
        recipient: str = "",
        subject: str = "",
        reason: str = "",
        rule_id: str = "",
    ) -> tuple[list[HeldRow], int]:
        """Newest first, those older than `after`, that fit all filters; and how many fit in all."""
        conditions: list[ColumnElement[bool]] = [
            column.icontains(text, autoescape=True)
            for column, text in (
                (quarantine.c.reverse_path, sender),
                (quarantine.c.recipients, recipient),
                (quarantine.c.subject, subject),
            )
            if text
        ]
        conditions += [
            column == text for column, text in ((quarantine.c.reason, reason), (quarantine.c.rule_id, rule_id)) if text
        ]
        query = select(quarantine).where(*conditions)
        if after:
            query = query.where(quarantine.c.queue_id < after)
        async with self._database.read() as connection:
            total = (await connection.execute(select(func.count()).select_from(quarantine).where(*conditions))).scalar_one()
            rows = await connection.execute(query.order_by(quarantine.c.queue_id.desc()).limit(limit))
        return [_row(row) for row in rows], total


def _values(row: HeldRow) -> dict[str, Any]:
    values: dict[str, Any] = {column.name: getattr(row, column.name) for column in quarantine.columns}
    values["recipients"] = msgspec.json.encode(row.recipients).decode()
    # PostgreSQL's text holds no NUL
    return {name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in values.items()}


def _row(row: Row[Any]) -> HeldRow:
    values = {column.name: getattr(row, column.name) for column in quarantine.columns}
    values["recipients"] = msgspec.json.decode(row.recipients)
    return HeldRow(**values)
