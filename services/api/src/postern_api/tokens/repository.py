"""Tokens in the database: only their SHA-256 digests. A token has 256 random bits, so that a plain digest cannot be guessed back;
the look-up is by digest, so that no comparison takes longer the nearer a guess comes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from postern_api.store.database import Database
from postern_api.store.models import tokens
from postern_api.tokens.scopes import Scope


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is known afterwards."""

    id: str
    name: str
    scope: Scope
    created_at: datetime
    created_by: str


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class TokenRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, token: str) -> Token | None:
        """Whose token this is."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(tokens).where(tokens.c.digest == digest(token)))).first()
        return _token(row) if row else None

    async def all(self) -> list[Token]:
        async with self._database.read() as connection:
            rows = await connection.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.id))
        return [_token(row) for row in rows]

    async def add(
        self, connection: AsyncConnection, token_id: str, *, name: str, scope: Scope, token: str, created_by: str
    ) -> bool:
        """False when this very token is known already."""
        values = {
            "id": token_id,
            "name": name,
            "scope": scope.value,
            "digest": digest(token),
            "created_at": datetime.now(UTC),
            "created_by": created_by,
        }
        insert = self._database.insert(tokens).values(values).on_conflict_do_nothing(index_elements=["digest"])
        return (await connection.execute(insert.returning(tokens.c.id))).first() is not None

    async def get(self, connection: AsyncConnection, token_id: str) -> Token | None:
        row = (await connection.execute(select(tokens).where(tokens.c.id == token_id))).first()
        return _token(row) if row else None

    async def ids_locked(self, connection: AsyncConnection, scope: Scope) -> list[str]:
        """The tokens of this scope, which nobody else can delete before the end of the transaction."""
        query = select(tokens.c.id).where(tokens.c.scope == scope.value).order_by(tokens.c.id).with_for_update()
        return [row.id for row in await connection.execute(query)]

    async def delete(self, connection: AsyncConnection, token_id: str) -> None:
        await connection.execute(tokens.delete().where(tokens.c.id == token_id))


def _token(row: Row[tuple[object, ...]]) -> Token:
    return Token(row.id, row.name, Scope(row.scope), row.created_at, row.created_by)
