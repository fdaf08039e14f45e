"""Who asks, and may he? Bearer tokens (RFC 6750 section 2.1) against the scopes' table.

The token is looked at before the first byte of the body is: nobody without one can make the api read, keep or parse anything large.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.types import Message

from postern_api.context import Context
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


async def identified(request: Request) -> Actor:
    """UnauthenticatedError without a known token."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise UnauthenticatedError("no_token", "send the header Authorization: Bearer <token>")
    context: Context = request.app.state.context
    token = await context.token_repository.find(text.strip())
    if token is None:
        log.warning("token.refused", client=request.client.host if request.client else "")
        raise UnauthenticatedError("unknown_token", "this token is not known, or was revoked")
    return Actor(f"{token.name} ({token.id})", token.id, token.scope)


class _TokenFirst(APIRoute):
    """Identifies the actor, then reads the body: at most `app.state.max_body_bytes` of it, else 413."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            request.state.actor = await identified(request)
            return await handle(_limited(request))

        return guarded


def operation_id(route: APIRoute) -> str:
    """The name of an operation in the OpenAPI document: the endpoint's."""
    return route.name


def guarded_router(prefix: str, tag: str) -> APIRouter:
    """A router below /api/v1 whose endpoints nobody reaches without a token."""
    return APIRouter(prefix=f"/api/v1{prefix}", tags=[tag], route_class=_TokenFirst, generate_unique_id_function=operation_id)


def _limited(request: Request) -> Request:
    limit: int = request.app.state.max_body_bytes
    length = request.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > limit:
        raise _too_large(limit)
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit)
        return message

    return Request(request.scope, receive)


def _too_large(limit: int) -> HTTPException:
    # the framework's own class: anything else that is raised while a body is read, it takes for a body that cannot be parsed
    return HTTPException(413, f"a request body has at most {limit} bytes")


def _actor(request: Request, _: Annotated[object, Depends(_bearer)]) -> Actor:
    # `_bearer` is for the OpenAPI document; an endpoint outside a guarded router has no actor, and fails
    found: Actor = request.state.actor
    return found


def _requires(right: Right) -> Callable[[Actor], Awaitable[Actor]]:
    async def allowed(who: Annotated[Actor, Depends(_actor)]) -> Actor:
        if right not in ALLOWS[who.scope]:
            raise ForbiddenError("scope_too_narrow", f"a token of scope {who.scope} may not {right}")
        return who

    return allowed


Reader = Annotated[Actor, Depends(_requires(Right.READ))]
Operator = Annotated[Actor, Depends(_requires(Right.OPERATE))]
Administrator = Annotated[Actor, Depends(_requires(Right.ADMINISTER))]
