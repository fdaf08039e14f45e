"""/settings"""

from __future__ import annotations

import msgspec

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.errors import declared, declared_change
from postern_api.general.schemas import SettingsBody

router = guarded_router("/settings", "settings")


@router.get("", responses=declared())
async def get_settings(policy: CurrentPolicy) -> SettingsBody:
    """The relay's name, its notices, and the bounds of screening."""
    return SettingsBody.of(policy.settings)


@router.put("", responses=declared_change())
async def replace_settings(body: SettingsBody, change: PolicyChange) -> SettingsBody:
    """Change them."""
    settings = body.to_object()
    await change.apply("settings.changed", "settings", lambda snapshot: msgspec.structs.replace(snapshot, settings=settings))
    return SettingsBody.of(settings)
