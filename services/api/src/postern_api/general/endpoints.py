"""/settings"""

from __future__ import annotations

import msgspec
from fastapi import APIRouter

from postern_api.access import Reader
from postern_api.changing import PolicyChange
from postern_api.context import InContext
from postern_api.errors import declared, declared_change
from postern_api.general.schemas import SettingsBody

router = APIRouter(prefix="/settings", tags=["settings"])


@router.get("", responses=declared())
async def get_settings(context: InContext, _: Reader) -> SettingsBody:
    """The relay's name, its notices, and the bounds of screening."""
    return SettingsBody.of((await context.editor.current()).snapshot.settings)


@router.put("", responses=declared_change())
async def replace_settings(body: SettingsBody, change: PolicyChange) -> SettingsBody:
    """Change them."""
    settings = body.to_object()
    await change.apply("settings.changed", "settings", lambda snapshot: msgspec.structs.replace(snapshot, settings=settings))
    return SettingsBody.of(settings)
