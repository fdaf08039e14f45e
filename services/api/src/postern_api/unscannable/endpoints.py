"""/screening/unscannable"""

from __future__ import annotations

import msgspec

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.errors import declared, declared_change
from postern_api.unscannable.schemas import UnscannableBody

router = guarded_router("/screening/unscannable", "screening")


@router.get("", responses=declared())
async def get_unscannable(policy: CurrentPolicy) -> UnscannableBody:
    """What becomes of mail that cannot be screened whole."""
    return UnscannableBody.of(policy.unscannable)


@router.put("", responses=declared_change())
async def replace_unscannable(body: UnscannableBody, change: PolicyChange) -> UnscannableBody:
    """Change it: kinds that are not named are held."""
    unscannable = body.to_object()
    await change.apply(
        "unscannable.changed",
        "screening/unscannable",
        lambda snapshot: msgspec.structs.replace(snapshot, unscannable=unscannable),
    )
    return UnscannableBody.of(unscannable)
