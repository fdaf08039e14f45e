"""/auth-failures"""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import Path
from pydantic import AfterValidator

from postern_api.access import Operator, Reader, guarded_router
from postern_api.audit.service import audited
from postern_api.auth_failures.schemas import AuthFailuresView, AuthFailureView, ClearedView
from postern_api.context import InContext
from postern_api.errors import NotFoundError, declared
from postern_api.fields import Limit

router = guarded_router("/auth-failures", "auth-failures")


def _key(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    kind, _, rest = text.partition(":")
    if kind not in ("address", "user") or not rest:
        raise ValueError("must be address:<address> or user:<name>")
    return text.casefold()


Key = Annotated[str, Path(max_length=320), AfterValidator(_key)]


@router.get("", responses=declared())
async def list_auth_failures(context: InContext, _: Reader, limit: Limit = 100) -> AuthFailuresView:
    """Networks and users whose logins failed lately, all replicas of the authenticated gate together."""
    page = await context.accounts.failures(limit)
    return AuthFailuresView(
        rows=[AuthFailureView(**msgspec.structs.asdict(row)) for row in page.rows],
        total=page.total,
        unknown_names=page.unknown_names,
    )


@router.delete("", responses=declared())
async def clear_auth_failures(context: InContext, who: Operator) -> ClearedView:
    """Forget all of them: nobody is slowed down or blocked any more."""
    async with audited(context.audit, who.name, "auth_failures.cleared", "auth-failures"):
        return ClearedView(cleared=await context.accounts.clear("", who.name))


@router.delete("/{key}", status_code=204, responses=declared(404))
async def clear_auth_failure(key: Key, context: InContext, who: Operator) -> None:
    """Forget one, at all replicas: it is heard again at once."""
    async with audited(context.audit, who.name, "auth_failures.cleared", f"auth-failures/{key}"):
        if not await context.accounts.clear(key, who.name):
            raise NotFoundError("auth_failure", key)
