"""Entries of the audit log. Written in the transaction of the change, or before an act that is not one of the database's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from postern_api.policy.differences import Difference
from postern_api.store.database import Database
from postern_api.store.models import audit


@dataclass(frozen=True, slots=True)
class AuditEntry:
    id: int
    at: datetime
    actor: str
    action: str
    target: str
    outcome: str  # "done", "started" (and not known to have ended), "failed"
    revision: int | None
    changes: list[dict[str, Any]]


class AuditRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        connection: AsyncConnection,
        actor: str,
        action: str,
        target: str,
        *,
        revision: int | None = None,
        changes: Sequence[Difference] = (),
        outcome: str = "done",
    ) -> int:
        """Write one entry in the caller's transaction; returns its id."""
        values = {
            "at": datetime.now(UTC),
            "actor": actor,
            "action": action,
            "target": target,
            "outcome": outcome,
            "revision": revision,
            "changes": msgspec.json.encode(changes).decode(),
        }
        added = await connection.execute(audit.insert().values(values).returning(audit.c.id))
        entry: int = added.scalar_one()
        return entry

    async def begin(self, actor: str, action: str, target: str, detail: dict[str, Any] | None = None) -> int:
        """Note that an act on mail begins; without this entry it must not."""
        changes = [Difference(object=target, before=None, after=detail)] if detail else []
        async with self._database.write() as connection:
            return await self.add(connection, actor, action, target, changes=changes, outcome="started")

    async def end(self, entry: int, outcome: str) -> None:
        """Note how it ended."""
        async with self._database.write() as connection:
            await connection.execute(update(audit).where(audit.c.id == entry).values(outcome=outcome))

    async def page(self, *, before: int | None, limit: int, actor: str = "", target: str = "") -> list[AuditEntry]:
        """Newest first, those with an id below `before`."""
        query = select(audit)
        if before is not None:
            query = query.where(audit.c.id < before)
        if actor:
            query = query.where(audit.c.actor == actor)
        if target:
            query = query.where(audit.c.target.startswith(target, autoescape=True))
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(audit.c.id.desc()).limit(limit))
        return [
            AuditEntry(
                row.id, row.at, row.actor, row.action, row.target, row.outcome, row.revision, msgspec.json.decode(row.changes)
            )
            for row in rows
        ]
