"""App-passwords in the database: their hashes, and when they were made and used. Like all credentials they are no part of a revision."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Row, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from postern_api.store.database import Database
from postern_api.store.models import app_passwords
from postern_core.accounts import PasswordUse

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_ID_CHARACTERS: Final = 8
_GROUPS, _GROUP_CHARACTERS = 5, 6  # 150 bits: no guess hits
NOTED_EVERY: Final = timedelta(hours=1)  # a use later than the one before that is noted


@dataclass(frozen=True, slots=True)
class StoredAppPassword:
    """One of a user's."""

    id: str
    user: str  # case-folded
    name: str
    password_hash: str
    created_at: datetime
    last_used_at: datetime | None


def new_app_password() -> tuple[str, str]:
    """An id, and the text (postern_core.credentials.APP_PASSWORD), which begins with it."""
    password_id = _random(_ID_CHARACTERS)
    return password_id, "-".join([password_id, *(_random(_GROUP_CHARACTERS) for _ in range(_GROUPS))])


def _random(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


class AppPasswordRepository:
    """Reads take a transaction of their own; writes take part in the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, user: str) -> list[StoredAppPassword]:
        """A user's, the oldest first."""
        query = select(app_passwords).where(app_passwords.c.user == user.casefold())
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(app_passwords.c.created_at, app_passwords.c.id))
        return [_stored(row) for row in rows]

    async def by_user(self) -> dict[str, list[StoredAppPassword]]:
        """All of them, by case-folded user."""
        found: dict[str, list[StoredAppPassword]] = {}
        async with self._database.read() as connection:
            rows = await connection.execute(select(app_passwords).order_by(app_passwords.c.created_at, app_passwords.c.id))
        for row in rows:
            found.setdefault(row.user, []).append(_stored(row))
        return found

    async def add(self, connection: AsyncConnection, password_id: str, user: str, name: str, password_hash: str) -> None:
        values = {
            "id": password_id,
            "user": user.casefold(),
            "name": name,
            "password_hash": password_hash,
            "created_at": datetime.now(UTC),
        }
        await connection.execute(app_passwords.insert().values(values))

    async def revoke(self, connection: AsyncConnection, password_id: str) -> None:
        await connection.execute(delete(app_passwords).where(app_passwords.c.id == password_id))

    async def forget(self, connection: AsyncConnection, users: Iterable[str]) -> None:
        """All of these users."""
        await connection.execute(delete(app_passwords).where(app_passwords.c.user.in_([user.casefold() for user in users])))

    async def note_uses(self, uses: Iterable[PasswordUse]) -> None:
        """Note when passwords were used last, each at most once an hour."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(app_passwords.c.id, app_passwords.c.last_used_at))
        noted = {row.id: row.last_used_at for row in rows}
        newer = [use for use in uses if use.id in noted and (noted[use.id] is None or use.at - noted[use.id] >= NOTED_EVERY)]
        if not newer:
            return
        async with self._database.write() as connection:
            for use in newer:
                column = app_passwords.c.last_used_at
                update = app_passwords.update().where(app_passwords.c.id == use.id, or_(column.is_(None), column < use.at))
                await connection.execute(update.values(last_used_at=use.at))


def _stored(row: Row[tuple[object, ...]]) -> StoredAppPassword:
    return StoredAppPassword(row.id, row.user, row.name, row.password_hash, row.created_at, row.last_used_at)
