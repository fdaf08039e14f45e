"""The session log in the database, in the order of time. The key (time, session, command) is what pages and retention go by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, or_, select

from postern_api.store.database import Database
from postern_api.store.models import session_log


@dataclass(frozen=True, slots=True)
class Position:
    """Of a record in the log."""

    at: datetime
    session: str
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Records from `since` and before `until` that are exactly of these; what is empty is not asked for."""

    since: datetime
    until: datetime
    gate: str = ""
    client: str = ""
    user: str = ""
    session: str = ""


class SessionLogRepository:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, query: LogQuery, after: Position | None, limit: int) -> Sequence[Mapping[str, Any]]:
        """The oldest records behind `after`."""
        columns = session_log.c
        found = select(session_log).where(columns.at >= query.since, columns.at < query.until)
        for name in ("gate", "client", "user", "session"):
            if wanted := getattr(query, name):
                found = found.where(columns[name] == wanted)
        if after is not None:
            later_command = and_(columns.session == after.session, columns.n > after.n)
            behind = and_(columns.at == after.at, or_(columns.session > after.session, later_command))
            found = found.where(columns.at >= after.at, or_(columns.at > after.at, behind))
        async with self._database.read() as connection:
            rows = await connection.execute(found.order_by(columns.at, columns.session, columns.n).limit(limit))
            return [row._asdict() for row in rows]

    async def cut(self, older_than: datetime, most_rows: int) -> datetime:
        """Before which the log is to be forgotten: what is older than that, or over so many records."""
        newest = select(session_log.c.at).order_by(session_log.c.at.desc()).offset(most_rows).limit(1)
        async with self._database.read() as connection:
            over = (await connection.execute(newest)).scalar()
        return older_than if over is None else max(older_than, over)

    async def prune(self, before: datetime, limit: int) -> int:
        """Forget records of before then, about `limit` of them; returns how many."""
        step = select(session_log.c.at).order_by(session_log.c.at).offset(limit).limit(1)
        async with self._database.write() as connection:
            nth = (await connection.execute(step)).scalar()
            # those of one moment go together, so that each step gets on
            old = session_log.c.at < before if nth is None or nth >= before else session_log.c.at <= nth
            return (await connection.execute(delete(session_log).where(old))).rowcount
