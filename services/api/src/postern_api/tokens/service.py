"""Issues and revokes tokens. A token is shown once, when it is issued."""

from __future__ import annotations

import secrets
from typing import Final

from postern_api.audit.repository import AuditRepository
from postern_api.errors import ConflictError, NotFoundError
from postern_api.policy.differences import Difference
from postern_api.store.database import Database
from postern_api.tokens.repository import Token, TokenRepository
from postern_api.tokens.scopes import Scope
from postern_core.errors import ConfigurationError

_MIN_CHARACTERS: Final = 20


class TokenService:
    def __init__(self, database: Database, repository: TokenRepository, audit: AuditRepository) -> None:
        self._database = database
        self._repository = repository
        self._audit = audit

    async def issue(self, name: str, scope: Scope, actor: str) -> tuple[Token, str]:
        """A new token, and its text."""
        text = f"postern_{secrets.token_urlsafe(32)}"
        return await self._add(name, scope, text, actor, "token.issued"), text

    async def revoke(self, token_id: str, actor: str) -> None:
        """NotFoundError; ConflictError for the last administrator's token."""
        async with self._database.write() as connection:
            token = await self._repository.get(connection, token_id)
            if token is None:
                raise NotFoundError("token", token_id)
            if token.scope is Scope.ADMIN and await self._repository.ids_locked(connection, Scope.ADMIN) == [token_id]:
                raise ConflictError("last_admin_token", "this is the last administrator's token: issue another one first")
            await self._repository.delete(connection, token_id)
            change = Difference(object=f"tokens/{token_id}", before=_shown(token), after=None)
            await self._audit.add(connection, actor, "token.revoked", f"tokens/{token_id}", changes=[change])

    async def register_admin(self, text: str) -> None:
        """Make the token of the settings an administrator's, unless it is known. ConfigurationError for one that could be guessed."""
        if len(text) < _MIN_CHARACTERS:
            raise ConfigurationError(f"POSTERN_ADMIN_TOKEN_FILE: the token has fewer than {_MIN_CHARACTERS} characters")
        if await self._repository.find(text) is None:
            await self._add("admin-token-file", Scope.ADMIN, text, "settings", "token.registered")

    async def _add(self, name: str, scope: Scope, text: str, actor: str, action: str) -> Token:
        token_id = f"t-{secrets.token_hex(6)}"
        async with self._database.write() as connection:
            if await self._repository.add(connection, token_id, name=name, scope=scope, token=text, created_by=actor):
                change = Difference(object=f"tokens/{token_id}", before=None, after={"name": name, "scope": scope.value})
                await self._audit.add(connection, actor, action, f"tokens/{token_id}", changes=[change])
            token = await self._repository.get(connection, token_id)
        found = token or await self._repository.find(text)
        if found is None:  # another replica had registered this very token, and it was revoked since
            raise ConflictError("token_gone", "the token was revoked at the same moment")
        return found


def _shown(token: Token) -> dict[str, str]:
    return {"name": token.name, "scope": token.scope.value}
