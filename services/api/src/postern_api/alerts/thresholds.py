"""When events are worth an alert: the three thresholds as a state machine. Pure: state, thresholds and an event in, state and perhaps a raise out.

All times are those of the events, but for those that claim to lie ahead: they count as now, else a wrong clock somewhere could silence an alert for
years. Events may come late and in any order. What is told together is raised once at most, however much it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from postern_api.alerts.objects import UNTIL_RESET, Thresholds

_SECONDS_KEPT: Final = 10  # of the newest: replicas tell of the same second one after another
_SUBJECTS_KEPT: Final = 20
_MOST_SUBJECT: Final = 200  # characters: what an attacker wrote may be in it
_MOST_TEXT: Final = 500  # of a field
_MOST_FIELDS: Final = 12

Field = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Event:
    """What happened `count` times at about `at`, about the same subject. `fields` tell of the first."""

    about: str
    at: datetime
    count: int = 1
    service: str = ""
    fields: dict[str, Field] | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What events were about since the last raise, how often, and more of the newest."""

    about: str
    count: int
    service: str = ""
    fields: dict[str, Field] = {}


class AlertState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that is kept of a kind. Since its reset: `total` events from `first_at` to `last_at`; since it was last raised: `pending`."""

    total: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    pending: int = 0
    pending_since: datetime | None = None
    subjects: tuple[Subject, ...] = ()  # of the pending ones, the first _SUBJECTS_KEPT
    seconds: dict[int, int] = {}  # events in each of the newest seconds (since the epoch)
    raises: int = 0
    raised_at: datetime | None = None
    acknowledged_at: datetime | None = None  # None again when it is raised again
    acknowledged_by: str = ""


@dataclass(frozen=True, slots=True)
class Raise:
    """An alert is raised: `count` events since the one before it, or since the reset."""

    at: datetime
    first_at: datetime
    count: int
    subjects: tuple[Subject, ...]


def count(state: AlertState, thresholds: Thresholds, events: Sequence[Event], now: datetime) -> tuple[AlertState, Raise | None]:
    """The state after `events`, at least one, which were told together; and the raise that they brought, one at most."""
    counted, newest, busiest = state, None, 0
    for event in events:
        at = min(event.at, now)
        second = int(at.timestamp())
        in_second = counted.seconds.get(second, 0) + event.count
        newest, busiest = max(newest or at, at), max(busiest, in_second)
        counted = msgspec.structs.replace(
            counted,
            total=counted.total + event.count,
            first_at=min(counted.first_at or at, at),
            last_at=max(counted.last_at or at, at),
            pending=counted.pending + event.count,
            pending_since=min(counted.pending_since or at, at),
            subjects=_with(counted.subjects, event),
            seconds=_newest({**counted.seconds, second: in_second}),
        )
    if newest is None or not _holds(counted, thresholds, busiest, newest):
        return counted, None
    raised = Raise(at=newest, first_at=counted.pending_since or newest, count=counted.pending, subjects=counted.subjects)
    after = msgspec.structs.replace(
        counted,
        pending=0,
        pending_since=None,
        subjects=(),
        raises=state.raises + 1,
        raised_at=max(state.raised_at or newest, newest),
        acknowledged_at=None,
        acknowledged_by="",
    )
    return after, raised


def acknowledged(state: AlertState, by: str, now: datetime) -> AlertState:
    """Somebody has seen it. Counting goes on as before: what is silent until a reset stays so."""
    return msgspec.structs.replace(state, acknowledged_at=now, acknowledged_by=by)


def _holds(counted: AlertState, thresholds: Thresholds, in_second: int, at: datetime) -> bool:
    if not thresholds.enabled or counted.pending < thresholds.events_before_raise or in_second < thresholds.events_per_second:
        return False
    if counted.raised_at is None:
        return True
    if thresholds.minutes_before_reraise == UNTIL_RESET:
        return False
    wait = timedelta(minutes=thresholds.minutes_before_reraise)
    return not wait or at - counted.raised_at >= wait


def _with(subjects: tuple[Subject, ...], event: Event) -> tuple[Subject, ...]:
    told = Subject(about=event.about[:_MOST_SUBJECT], count=event.count, service=event.service, fields=_short(event.fields or {}))
    for place, known in enumerate(subjects):
        if known.about == told.about:
            return (*subjects[:place], msgspec.structs.replace(told, count=known.count + told.count), *subjects[place + 1 :])
    return (*subjects, told)[:_SUBJECTS_KEPT]


def _short(fields: dict[str, Field]) -> dict[str, Field]:
    few = list(fields.items())[:_MOST_FIELDS]
    return {name[:_MOST_TEXT]: value[:_MOST_TEXT] if isinstance(value, str) else value for name, value in few}


def _newest(seconds: dict[int, int]) -> dict[int, int]:
    oldest = max(seconds) - _SECONDS_KEPT
    return {second: events for second, events in seconds.items() if second > oldest}
