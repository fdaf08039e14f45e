"""/schedule"""

from __future__ import annotations

import msgspec

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.errors import declared, declared_change
from postern_api.schedule.schemas import ScheduleBody

router = guarded_router("/schedule", "schedule")


@router.get("", responses=declared())
async def get_schedule(policy: CurrentPolicy) -> ScheduleBody:
    """When deferred mail is tried again, when its sender is told, and when it expires."""
    return ScheduleBody.of(policy.schedule)


@router.put("", responses=declared_change())
async def replace_schedule(body: ScheduleBody, change: PolicyChange) -> ScheduleBody:
    """Change the schedule: mail takes it at its next attempt."""
    schedule = body.to_object()
    await change.apply("schedule.changed", "schedule", lambda snapshot: msgspec.structs.replace(snapshot, schedule=schedule))
    return ScheduleBody.of(schedule)
