"""/alarms"""

from __future__ import annotations

from postern_api.access import Reader, guarded_router
from postern_api.alarms.kinds import Severity
from postern_api.alarms.schemas import AlarmsView, AlarmView
from postern_api.context import InContext
from postern_api.errors import declared

router = guarded_router("/alarms", "alarms")


@router.get("", responses=declared())
async def get_alarms(context: InContext, _: Reader) -> AlarmsView:
    """What of streams, consumers, replicas and books an administrator has to look at. Answered from the last look, at once."""
    watch = context.watch
    return AlarmsView(
        looked_at=watch.looked_at,
        verified_at=context.verifier.verified_at,
        unseen=list(watch.unseen),
        critical=watch.board.count(Severity.CRITICAL),
        warning=watch.board.count(Severity.WARNING),
        alarms=[
            AlarmView(
                kind=alarm.kind,
                severity=alarm.condition.severity,
                about=alarm.about,
                since=alarm.since,
                summary=alarm.condition.summary,
                advice=alarm.condition.advice,
                figures=alarm.condition.figures,
            )
            for alarm in watch.board.alarms
        ],
    )
