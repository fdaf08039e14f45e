"""Revisions and credentials in the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Row, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from postern_api.policy.app_passwords import AppPasswordRepository
from postern_api.policy.objects import Snapshot, decode_snapshot, encode_snapshot
from postern_api.store.database import Database
from postern_api.store.models import revisions, route_credentials, smtp_credentials


@dataclass(frozen=True, slots=True)
class Revision:
    """One immutable state of the whole policy."""

    number: int
    at: datetime
    author: str
    comment: str
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class RevisionHead:
    """A revision without its snapshot."""

    number: int
    at: datetime
    author: str
    comment: str


class PolicyRepository:
    """Reads take a transaction of their own; writes take part in the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.app_passwords = AppPasswordRepository(database)

    async def newest(self) -> Revision | None:
        query = select(revisions).order_by(revisions.c.number.desc()).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return _revision(row) if row else None

    async def get(self, number: int) -> Revision | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(revisions).where(revisions.c.number == number))).first()
        return _revision(row) if row else None

    async def heads(self, *, before: int | None, limit: int) -> list[RevisionHead]:
        """Newest first, those with a number below `before`."""
        query = select(revisions.c.number, revisions.c.at, revisions.c.author, revisions.c.comment)
        if before is not None:
            query = query.where(revisions.c.number < before)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(revisions.c.number.desc()).limit(limit))
        return [RevisionHead(row.number, row.at, row.author, row.comment) for row in rows]

    async def add(self, connection: AsyncConnection, number: int, author: str, comment: str, snapshot: Snapshot) -> None:
        """IntegrityError when somebody else has made revision `number` meanwhile."""
        values = {
            "number": number,
            "at": datetime.now(UTC),
            "author": author,
            "comment": comment,
            "snapshot": encode_snapshot(snapshot),
        }
        await connection.execute(revisions.insert().values(values))

    async def password_hashes(self) -> dict[str, str]:
        """Case-folded user name → argon2id hash."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(smtp_credentials.c.name, smtp_credentials.c.password_hash))
        return {row.name: row.password_hash for row in rows}

    async def scram_verifiers(self) -> dict[str, str]:
        """Case-folded user name → verifier, of those that have one."""
        async with self._database.read() as connection:
            query = select(smtp_credentials.c.name, smtp_credentials.c.scram).where(smtp_credentials.c.scram != "")
            rows = await connection.execute(query)
        return {row.name: row.scram for row in rows}

    async def set_password_hash(self, connection: AsyncConnection, name: str, password_hash: str, scram: str = "") -> None:
        values = {"name": name.casefold(), "password_hash": password_hash, "scram": scram, "at": datetime.now(UTC)}
        insert = self._database.insert(smtp_credentials).values(values)
        changes = {column: insert.excluded[column] for column in ("password_hash", "scram", "at")}
        await connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=changes))

    async def forget_password_hashes(self, connection: AsyncConnection, names: Iterable[str]) -> None:
        folded = [name.casefold() for name in names]
        await connection.execute(delete(smtp_credentials).where(smtp_credentials.c.name.in_(folded)))

    async def route_users(self) -> dict[str, str]:
        """Route name → the user whose password is set for it."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(route_credentials.c.route, route_credentials.c.user))
        return {row.route: row.user for row in rows}

    async def note_route_password(self, connection: AsyncConnection, route: str, user: str) -> None:
        """Note that a password is set; it is not kept here."""
        insert = self._database.insert(route_credentials).values({"route": route, "user": user, "at": datetime.now(UTC)})
        changes = {"user": insert.excluded.user, "at": insert.excluded.at}
        await connection.execute(insert.on_conflict_do_update(index_elements=["route"], set_=changes))

    async def forget_route_password(self, connection: AsyncConnection, route: str) -> None:
        await connection.execute(delete(route_credentials).where(route_credentials.c.route == route))


def _revision(row: Row[tuple[object, ...]]) -> Revision:
    return Revision(row.number, row.at, row.author, row.comment, decode_snapshot(row.snapshot))
