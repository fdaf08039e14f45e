"""/alerts"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fastapi import Query

from postern_api.access import Operator, Reader, guarded_router
from postern_api.alerts import pausing
from postern_api.alerts.catalogue import ALARMS, AlertKind
from postern_api.alerts.objects import AlertAction, AlertPolicy, Thresholds
from postern_api.alerts.schemas import (
    ActionBody,
    AlertStanding,
    AlertsView,
    AlertView,
    ChannelsBody,
    RaisesPage,
    RaiseView,
    ThresholdsBody,
)
from postern_api.alerts.service import Alert, thresholds_of
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.context import Context, InContext
from postern_api.errors import InvalidError, declared, declared_change
from postern_api.fields import Limit
from postern_api.policy.objects import Snapshot

router = guarded_router("/alerts", "alerts")

_RANK = {AlertStanding.OPEN: 0, AlertStanding.ACKNOWLEDGED: 1, AlertStanding.COUNTING: 2, AlertStanding.QUIET: 3}
_NEVER = datetime.min.replace(tzinfo=UTC)
Since = Annotated[datetime | None, Query(description="Only what was heard of from then on (with a time zone).")]


@router.get("", responses=declared(400))
async def list_alerts(
    *,
    context: InContext,
    _: Reader,
    standing: Annotated[list[AlertStanding] | None, Query(description="Only these; may be given several times.")] = None,
    kind: Annotated[list[AlertKind] | None, Query(description="Only these; may be given several times.")] = None,
    since: Since = None,
) -> AlertsView:
    """Every kind of the catalogue, with what was counted since its reset: the open ones first."""
    _check(since)
    views = [_view(context, alert) for alert in await context.alerts.alerts()]
    shown = [
        view
        for view in views
        if (not standing or view.standing in standing)
        and (not kind or view.kind in kind)
        and (since is None or (view.last_at is not None and view.last_at >= since))
    ]
    shown.sort(key=lambda view: view.last_at or _NEVER, reverse=True)
    shown.sort(key=lambda view: _RANK[view.standing])
    return AlertsView(open=sum(view.standing is AlertStanding.OPEN for view in views), alerts=shown)


@router.get("/history", responses=declared(400))
async def list_raises(
    *,
    context: InContext,
    _: Reader,
    before: Annotated[int | None, Query(ge=1, le=2**62, description="`id` of the last one of the page before.")] = None,
    limit: Limit = 100,
    kind: AlertKind | None = None,
    since: Since = None,
) -> RaisesPage:
    """Every raise that is kept, newest first, and whom it was told."""
    _check(since)
    rows = await context.alert_repository.raises(before=before, limit=limit, kind=kind.value if kind else "", since=since)
    return RaisesPage(raises=[RaiseView.of(row) for row in rows])


@router.get("/channels", responses=declared())
async def get_channels(policy: CurrentPolicy) -> ChannelsBody:
    """Whom alerts are told."""
    return ChannelsBody.of(policy.alerts.channels)


@router.put("/channels", responses=declared_change())
async def replace_channels(body: ChannelsBody, change: PolicyChange) -> ChannelsBody:
    """Change whom: the next raise is told to them."""
    channels = body.to_object()

    def edit(snapshot: Snapshot) -> Snapshot:
        alerts = msgspec.structs.replace(snapshot.alerts, channels=channels)
        return msgspec.structs.replace(snapshot, alerts=alerts)

    await change.apply("alert-channels.changed", "alerts/channels", edit)
    return ChannelsBody.of(channels)


@router.get("/{kind}", responses=declared())
async def get_alert(kind: AlertKind, context: InContext, _: Reader) -> AlertView:
    """One kind."""
    return await _one(context, kind)


@router.post("/{kind}/acknowledge", responses=declared(409))
async def acknowledge_alert(kind: AlertKind, context: InContext, who: Operator) -> AlertView:
    """It has been seen: it is open no more, until it is raised again. Repeating it does no harm."""
    await context.alerts.acknowledge(kind, who.name)
    return await _one(context, kind)


@router.post("/{kind}/reset", responses=declared())
async def reset_alert(kind: AlertKind, context: InContext, who: Operator) -> AlertView:
    """Counting begins anew, and what was silent until a reset is not any more; gates that it paused are opened where its action says so. Repeating it
    does no harm."""
    await context.alerts.reset(kind, who.name)
    await pausing.resume(context.editor, kind, who.name)
    return await _one(context, kind)


@router.get("/{kind}/thresholds", responses=declared())
async def get_thresholds(kind: AlertKind, policy: CurrentPolicy) -> ThresholdsBody:
    """When events of this kind are raised."""
    return ThresholdsBody.of(thresholds_of(policy.alerts, kind))


@router.put("/{kind}/thresholds", responses=declared_change())
async def replace_thresholds(kind: AlertKind, body: ThresholdsBody, change: PolicyChange) -> ThresholdsBody:
    """Change when: what was counted stays counted."""
    thresholds = body.to_object()
    await change.apply(
        "alert-thresholds.changed", f"alerts/{kind.value}/thresholds", lambda snapshot: _with(snapshot, kind, thresholds)
    )
    return ThresholdsBody.of(thresholds)


@router.get("/{kind}/action", responses=declared())
async def get_action(kind: AlertKind, policy: CurrentPolicy) -> ActionBody:
    """What an alert of this kind does beside telling."""
    return ActionBody.of(pausing.action_of(policy, kind.value))


@router.put("/{kind}/action", responses=declared_change())
async def replace_action(kind: AlertKind, body: ActionBody, change: PolicyChange) -> ActionBody:
    """Change what: the next raise does it."""
    action = body.to_object()

    def edit(snapshot: Snapshot) -> Snapshot:
        actions = {name: value for name, value in snapshot.alerts.actions.items() if name != kind.value}
        if action != AlertAction():
            actions[kind.value] = action
        alerts = msgspec.structs.replace(snapshot.alerts, actions=dict(sorted(actions.items())))
        return msgspec.structs.replace(snapshot, alerts=alerts)

    await change.apply("alert-action.changed", f"alerts/{kind.value}/action", edit)
    return ActionBody.of(action)


def _with(snapshot: Snapshot, kind: AlertKind, thresholds: Thresholds) -> Snapshot:
    others = {name: value for name, value in snapshot.alerts.thresholds.items() if name != kind.value}
    if thresholds != thresholds_of(AlertPolicy(), kind):
        others[kind.value] = thresholds
    return msgspec.structs.replace(
        snapshot, alerts=msgspec.structs.replace(snapshot.alerts, thresholds=dict(sorted(others.items())))
    )


async def _one(context: Context, kind: AlertKind) -> AlertView:
    return next(_view(context, alert) for alert in await context.alerts.alerts() if alert.kind is kind)


def _view(context: Context, alert: Alert) -> AlertView:
    alarm = ALARMS.get(alert.kind)
    return AlertView.of(alert, [each.about for each in context.watch.board.alarms if each.kind is alarm])


def _check(since: datetime | None) -> None:
    if since is not None and since.tzinfo is None:
        raise InvalidError("invalid_since", "since needs a time zone, as in 2026-03-01T09:30:00Z")
