"""Counts the events of the catalogue, and raises alerts: in one transaction with the deliveries of each, so that nothing is told twice or forgotten.

What services tell comes from the recorder, what this api sees itself after each look of the watch. While the database is away the
bus keeps the first, and the next look finds the second again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from postern_api.alarms.board import Alarm, AlarmBoard
from postern_api.alarms.kinds import Key, Severity
from postern_api.alerts.catalogue import ALARMS, CATALOGUE, AlertKind, of_alarm, of_notice
from postern_api.alerts.objects import AlertAction, AlertPolicy, Thresholds
from postern_api.alerts.repository import AlertRepository
from postern_api.alerts.thresholds import AlertState, Event, Raise, acknowledged, count
from postern_api.audit.repository import AuditRepository
from postern_api.errors import ConflictError
from postern_api.policy.repository import PolicyRepository
from postern_api.recorder import ToldNotices
from postern_api.store.database import Database
from postern_core.alerts import AlertRaised
from postern_core.notices import Notice

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_MOST_AT_ONCE: Final = 10**9  # events that one notice may claim


@dataclass(frozen=True, slots=True)
class Alert:
    """A kind as it stands."""

    kind: AlertKind
    thresholds: Thresholds
    state: AlertState


def thresholds_of(policy: AlertPolicy, kind: AlertKind) -> Thresholds:
    """Those of the policy, or the catalogue's."""
    return policy.thresholds.get(kind.value, CATALOGUE[kind].defaults)


class AlertService:
    """`on_raised` is called when there is something to deliver."""

    def __init__(self, database: Database, repository: AlertRepository, policy: PolicyRepository, audit: AuditRepository) -> None:
        self._database = database
        self._repository = repository
        self._policies = policy
        self._audit = audit
        self._policy: tuple[int, AlertPolicy] = (0, AlertPolicy())
        self.on_raised: Callable[[], None] = lambda: None
        self.tell_bus: Callable[[AlertRaised], None] = lambda _: None

    # -- what comes in

    async def take(self, told: Sequence[ToldNotices]) -> None:
        """Count notices, those that were told again not again. SQLAlchemyError or OSError when they are to be told again."""
        policy, now = await self.policy(), datetime.now(UTC)
        async with self._database.write() as connection:
            new = await self._repository.first_time(connection, {each.key for each in told}, now)
            batches = [_by_kind(each.notices) for each in {each.key: each for each in told}.values() if each.key in new]
            raised = await self._count(connection, batches, policy, now)
        self._tell(raised)

    async def take_alarms(self, board: AlarmBoard, covered: Callable[[Key], bool]) -> None:
        """After a look: each alarm that is up and was not counted yet, or has become critical since, is an event. What this look did not find
        any more, although it could have, is over."""
        up = {(of_alarm(alarm.kind).value, alarm.about): alarm for alarm in board.alarms}
        raised: list[tuple[AlertKind, Raise]] = []
        try:
            async with self._database.read() as connection:
                known = await self._repository.alarms(connection)
            if known.keys() == up.keys() and not any(_is_news(known, key, alarm) for key, alarm in up.items()):
                return
            policy, now = await self.policy(), datetime.now(UTC)
            async with self._database.write() as connection:
                # first of all the locks: another replica may have seen the same
                await self._repository.locked(connection, (kind for kind, _ in (*up, *known)))
                known = await self._repository.alarms(connection)
                for kind, about in known.keys() - up.keys():
                    alarm_key = (ALARMS[AlertKind(kind)], about)
                    if covered(alarm_key) and not board.is_seen(alarm_key):
                        await self._repository.forget_alarm(connection, kind, about)
                news = [alarm for key, alarm in up.items() if _is_news(known, key, alarm)]
                for alarm in news:
                    key_of = (of_alarm(alarm.kind).value, alarm.about)
                    await self._repository.remember_alarm(connection, key_of, alarm.condition.severity.value, now)
                raised = await self._count(
                    connection, [{of_alarm(alarm.kind): [_seen(alarm, now)]} for alarm in news], policy, now
                )
        except (SQLAlchemyError, OSError) as error:
            log.warning("alerts.alarms_not_counted", reason=type(error).__name__)
        self._tell(raised)

    async def _count(
        self,
        connection: AsyncConnection,
        batches: Iterable[Mapping[AlertKind, Sequence[Event]]],
        policy: AlertPolicy,
        now: datetime,
    ) -> list[tuple[AlertKind, Raise]]:
        batches = list(batches)
        states = await self._repository.locked(connection, {kind.value for batch in batches for kind in batch})
        raises: list[tuple[AlertKind, Raise]] = []
        for batch in batches:
            for kind, events in batch.items():
                thresholds = thresholds_of(policy, kind)
                states[kind.value], raised = count(states[kind.value], thresholds, events, now)
                if raised is not None:
                    raises.append((kind, raised))
                    channels = policy.channels if thresholds.notify else None
                    pause = policy.actions.get(kind.value, AlertAction()).pause
                    await self._repository.add_raise(connection, kind.value, raised, channels, now, pause=pause)
        for name, state in states.items():
            await self._repository.put(connection, name, state)
        return raises

    def _tell(self, raises: Sequence[tuple[AlertKind, Raise]]) -> None:
        for kind, raised in raises:
            about = [subject.about for subject in raised.subjects[:5]]
            log.warning("alert.raised", kind=kind.value, count=raised.count, since=raised.first_at.isoformat(), about=about)
            self.tell_bus(
                AlertRaised(
                    kind=kind.value,
                    title=CATALOGUE[kind].title,
                    at=raised.at,
                    first_at=raised.first_at,
                    count=raised.count,
                    about=tuple(subject.about for subject in raised.subjects),
                    pauses=self._policy[1].actions.get(kind.value, AlertAction()).pause,
                )
            )
        if raises:
            self.on_raised()

    # -- what an administrator does

    async def alerts(self) -> list[Alert]:
        """Every kind of the catalogue."""
        policy, states = await self.policy(), await self._repository.states()
        return [Alert(kind, thresholds_of(policy, kind), states.get(kind.value, AlertState())) for kind in CATALOGUE]

    async def acknowledge(self, kind: AlertKind, actor: str) -> None:
        """It has been seen. ConflictError when there is nothing to be seen."""
        async with self._database.write() as connection:
            state = (await self._repository.locked(connection, [kind.value]))[kind.value]
            if state.raised_at is None:
                raise ConflictError("not_raised", f"no alert {kind.value!r} is raised")
            if state.acknowledged_at is None:
                await self._repository.put(connection, kind.value, acknowledged(state, actor, datetime.now(UTC)))
                await self._audit.add(connection, actor, "alert.acknowledged", f"alerts/{kind.value}")

    async def reset(self, kind: AlertKind, actor: str) -> None:
        """Counting begins anew, and so does silence. An alarm that is still up is an event again with the next look."""
        async with self._database.write() as connection:
            await self._repository.locked(connection, [kind.value])
            await self._repository.put(connection, kind.value, AlertState())
            await self._repository.forget_alarm(connection, kind.value)
            await self._audit.add(connection, actor, "alert.reset", f"alerts/{kind.value}")

    async def policy(self) -> AlertPolicy:
        """Of the newest revision; that is decoded once."""
        heads = await self._policies.heads(before=None, limit=1)
        if heads and heads[0].number != self._policy[0]:
            newest = await self._policies.get(heads[0].number)
            if newest is not None:
                self._policy = (newest.number, newest.snapshot.alerts)
        return self._policy[1]


def _by_kind(notices: Sequence[Notice]) -> dict[AlertKind, list[Event]]:
    found: dict[AlertKind, list[Event]] = {}
    for notice in notices:
        times = min(max(notice.count, 1), _MOST_AT_ONCE)
        event = Event(notice.about, notice.at, times, f"{notice.service}/{notice.instance}", notice.fields)
        found.setdefault(of_notice(notice.kind), []).append(event)
    return found


def _is_news(known: Mapping[tuple[str, str], str], key: tuple[str, str], alarm: Alarm) -> bool:
    before = known.get(key)
    return before is None or (before != alarm.condition.severity.value and alarm.condition.severity is Severity.CRITICAL)


def _seen(alarm: Alarm, now: datetime) -> Event:
    condition = alarm.condition
    told = {"severity": condition.severity.value, "summary": condition.summary, "advice": condition.advice}
    return Event(alarm.about, now, 1, "api", {**told, "since": alarm.since.isoformat()})
