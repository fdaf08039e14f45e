"""/status"""

from __future__ import annotations

from postern_api.access import Reader, guarded_router
from postern_api.context import InContext
from postern_api.errors import declared
from postern_api.status.schemas import StatusView

router = guarded_router("/status", "status")


@router.get("", responses=declared())
async def get_status(context: InContext, _: Reader) -> StatusView:
    """Every replica with the revision that it runs, and how full the streams are."""
    return await context.status.status()
