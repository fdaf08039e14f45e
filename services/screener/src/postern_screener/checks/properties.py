"""Criteria about the message as a whole and who handed it in: each a look at the envelope, asked only when a rule comes to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from postern_core.envelope import Envelope
from postern_core.policy import (
    AuthenticationCondition,
    ClientCondition,
    Criterion,
    DirectionCondition,
    ListKind,
    Lists,
    ScheduleCondition,
    SizeCondition,
    UserCondition,
    Weekday,
)
from postern_core.policy.conditions import checked_zone
from postern_core.policy.networks import NetworkSet
from postern_screener.checks.owners import Table

Property = Callable[[Envelope], str | None]  # what it found, as text for the verdict; None: it does not hold


def property_of(criterion: Criterion, lists: Lists | None = None) -> Property | None:
    """The look that `criterion` wants; None when it is of another kind. ValueError for a value that is none."""
    listed = lists or Lists()
    match criterion:
        case DirectionCondition(gates=gates):
            wanted = frozenset(gates)
            return lambda envelope: f"gate {envelope.gate}" if envelope.gate in wanted else None
        case ClientCondition(networks=networks, lists=names):
            table = NetworkSet(itertools.chain(networks, listed.values(names, ListKind.NETWORKS)))
            return lambda envelope: envelope.client.address if envelope.client.address in table else None
        case UserCondition(names=own, lists=names):
            users = Table()
            for name in itertools.chain(own, listed.values(names, ListKind.USERS)):
                users.add(name.casefold(), 0)
            is_any = not own and not names  # a list that is empty is not everybody
            return lambda envelope: _user(envelope, users, is_any=is_any)
        case ScheduleCondition():
            zone = checked_zone(criterion.timezone)
            return lambda envelope: _time(envelope, criterion, zone)
        case SizeCondition(larger_than_bytes=limit):
            return lambda envelope: f"{envelope.size_bytes} bytes" if envelope.size_bytes > limit else None
        case AuthenticationCondition(method=method, results=results):
            wanted_results = frozenset(results)
            return lambda envelope: next(
                (
                    f"{each.method}={each.result}"
                    for each in envelope.authentication
                    if each.method is method and each.result in wanted_results
                ),
                None,
            )
        case _:
            return None


def _user(envelope: Envelope, users: Table, *, is_any: bool) -> str | None:
    user = envelope.client.user
    return f"user {user}" if user and (is_any or users.get(user.casefold())) else None


def _time(envelope: Envelope, schedule: ScheduleCondition, zone: ZoneInfo) -> str | None:
    """By when it was accepted, not by when it is screened: a message that is screened again gets the same verdict."""
    at = envelope.accepted_at.astimezone(zone)
    return f"accepted {at:%a %H:%M} {schedule.timezone}" if is_within(schedule, at) else None


def is_within(schedule: ScheduleCondition, at: datetime) -> bool:
    """Whether that moment, by the clocks of the schedule's own timezone, lies in it."""
    minute = at.hour * 60 + at.minute
    if schedule.begin < schedule.end:
        return schedule.begin <= minute < schedule.end and _day(at) in schedule.days
    if minute >= schedule.begin:
        return _day(at) in schedule.days
    return minute < schedule.end and _day(at - timedelta(days=1)) in schedule.days


def _day(at: datetime) -> Weekday:
    return tuple(Weekday)[at.weekday()]
