"""/audit"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import Query

from postern_api.access import Reader, guarded_router
from postern_api.audit.schemas import AuditPage, AuditView
from postern_api.context import InContext
from postern_api.errors import declared
from postern_api.fields import Exactly, Limit

router = guarded_router("/audit", "audit")


@router.get("", responses=declared())
async def list_audit(
    context: InContext,
    _: Reader,
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    limit: Limit = 100,
    actor: Annotated[Exactly, Query(description="Exactly this actor.")] = "",
    target: Annotated[Exactly, Query(description="Targets that begin so, e.g. `rules/`.")] = "",
) -> AuditPage:
    """Every change of the policy and every act on mail, newest first."""
    entries = await context.audit.page(before=before, limit=limit, actor=actor, target=target)
    return AuditPage(entries=[AuditView(**asdict(entry)) for entry in entries])
