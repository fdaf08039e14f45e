"""Who asks, and may he? Bearer tokens (RFC 6750 section 2.1) against the scopes' table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from postern_api.context import InContext
from postern_api.errors import ForbiddenError, UnauthenticatedError
from postern_api.tokens.scopes import ALLOWS, Right, Scope

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_bearer = HTTPBearer(auto_error=False, description="A token from POST /api/v1/tokens, or the administrator's first one.")


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever holds the token; `name` stands in the audit log."""

    name: str
    token_id: str
    scope: Scope


async def actor(
    request: Request, context: InContext, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Actor:
    """UnauthenticatedError without a known token."""
    if credentials is None:
        raise UnauthenticatedError("no_token", "send the header Authorization: Bearer <token>")
    token = await context.token_repository.find(credentials.credentials)
    if token is None:
        log.warning("token.refused", client=request.client.host if request.client else "")
        raise UnauthenticatedError("unknown_token", "this token is not known, or was revoked")
    return Actor(f"{token.name} ({token.id})", token.id, token.scope)


def _requires(right: Right) -> Callable[[Actor], Awaitable[Actor]]:
    async def allowed(who: Annotated[Actor, Depends(actor)]) -> Actor:
        if right not in ALLOWS[who.scope]:
            raise ForbiddenError("scope_too_narrow", f"a token of scope {who.scope} may not {right}")
        return who

    return allowed


Reader = Annotated[Actor, Depends(_requires(Right.READ))]
Operator = Annotated[Actor, Depends(_requires(Right.OPERATE))]
Administrator = Annotated[Actor, Depends(_requires(Right.ADMINISTER))]
