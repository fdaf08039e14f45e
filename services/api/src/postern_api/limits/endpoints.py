"""/limits/anon and /limits/auth"""

from __future__ import annotations

import enum

import msgspec

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.errors import declared, declared_change
from postern_api.limits.schemas import LimitsBody
from postern_api.policy.objects import Snapshot

router = guarded_router("/limits", "limits")


class GateName(enum.StrEnum):
    """The gates that have limits."""

    ANON = "anon"
    AUTH = "auth"


@router.get("/{gate}", responses=declared())
async def get_limits(gate: GateName, policy: CurrentPolicy) -> LimitsBody:
    """The limits of one gate."""
    return LimitsBody.of(policy.anon if gate is GateName.ANON else policy.auth)


@router.put("/{gate}", responses=declared_change())
async def replace_limits(gate: GateName, body: LimitsBody, change: PolicyChange) -> LimitsBody:
    """Change the limits of one gate: sessions that begin from then on have them."""
    limits = body.to_object()

    def edit(snapshot: Snapshot) -> Snapshot:
        if gate is GateName.ANON:
            return msgspec.structs.replace(snapshot, anon=limits)
        return msgspec.structs.replace(snapshot, auth=limits)

    await change.apply("limits.changed", f"limits/{gate}", edit)
    return LimitsBody.of(limits)
