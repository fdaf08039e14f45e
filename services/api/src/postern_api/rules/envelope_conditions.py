"""Conditions about the envelope: who is to get the message, who handed it in and when, how large it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Line, Whole
from postern_api.rules.values import FewLines, Lines, ListNames, checked_values, list_names, some
from postern_core.envelope import Gate
from postern_core.policy import (
    ClientCondition,
    DirectionCondition,
    ListKind,
    RecipientCondition,
    ScheduleCondition,
    SizeCondition,
    UserCondition,
    Weekday,
)
from postern_core.policy.address_patterns import normalise_address_pattern
from postern_core.policy.conditions import checked_zone

_TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
_EndOfDay = Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")]
EnvelopeCondition = RecipientCondition | ScheduleCondition | DirectionCondition | ClientCondition | UserCondition | SizeCondition


class RecipientBody(Body):
    """A recipient is covered by any of the patterns. Where that differs between recipients, each share of them gets its own verdict."""

    type: Literal["recipient"]
    patterns: Lines = Field(
        min_length=1, description="Addresses, domains or `*.domain`; one `*` in the local-part stands for anything."
    )


class ScheduleConditionBody(Body):
    """The message was accepted at such a time of the week."""

    type: Literal["schedule"]
    timezone: Line = Field(description="As in Europe/Vienna, or UTC.")
    days: list[Weekday] = Field(default=list(Weekday), min_length=1, max_length=7)
    begin: _TimeOfDay = "00:00"
    end: _EndOfDay = Field(
        default="24:00", description="Not included. Not later than `begin`: over midnight, from each of the days to the next."
    )


class DirectionBody(Body):
    """The message came in at one of these gates."""

    type: Literal["direction"]
    gates: list[Literal["anon", "auth"]] = Field(min_length=1, max_length=2)


class ClientBody(Body):
    """The client that handed the message in has an address in one of these networks."""

    type: Literal["client"]
    networks: FewLines = Field(default=[], description="Addresses, or networks as in 192.0.2.0/24.")
    lists: ListNames = Field(default=[])


class UserBody(Body):
    """The message was sent by one of these users, or by any user where none is named."""

    type: Literal["user"]
    names: FewLines = Field(default=[], description="Caseless.")
    lists: ListNames = Field(default=[])


class SizeBody(Body):
    """The whole message is larger than a size."""

    type: Literal["message-size"]
    larger_than_bytes: Whole = Field(gt=0, le=2**50)


EnvelopeBody = RecipientBody | ScheduleConditionBody | DirectionBody | ClientBody | UserBody | SizeBody


def checked_envelope_condition(body: EnvelopeBody) -> EnvelopeCondition:
    """InvalidError for a value that is none."""
    match body:
        case RecipientBody(patterns=patterns):
            return RecipientCondition(patterns=checked_recipients(patterns))
        case ScheduleConditionBody():
            return checked_schedule(body)
        case DirectionBody(gates=gates):
            return DirectionCondition(gates=checked_gates(gates))
        case ClientBody(networks=networks, lists=lists):
            some(networks, lists, "networks")
            return ClientCondition(networks=checked_values(ListKind.NETWORKS, networks), lists=list_names(lists))
        case UserBody(names=names, lists=lists):
            return UserCondition(names=checked_values(ListKind.USERS, names), lists=list_names(lists))
        case SizeBody(larger_than_bytes=limit):
            return SizeCondition(larger_than_bytes=limit)


def shown_envelope_condition(condition: EnvelopeCondition) -> EnvelopeBody:
    """A condition as the API shows it."""
    match condition:
        case RecipientCondition(patterns=patterns):
            return RecipientBody(type="recipient", patterns=list(patterns))
        case ScheduleCondition():
            return shown_schedule(condition)
        case DirectionCondition(gates=gates):
            return DirectionBody(type="direction", gates=shown_gates(gates))
        case ClientCondition(networks=networks, lists=lists):
            return ClientBody(type="client", networks=list(networks), lists=list(lists))
        case UserCondition(names=names, lists=lists):
            return UserBody(type="user", names=list(names), lists=list(lists))
        case SizeCondition(larger_than_bytes=limit):
            return SizeBody(type="message-size", larger_than_bytes=limit)


def checked_gates(gates: Sequence[str]) -> tuple[Gate, ...]:
    """Each once."""
    return tuple(dict.fromkeys(Gate(gate) for gate in gates))


def shown_gates(gates: Sequence[Gate]) -> list[Literal["anon", "auth"]]:
    """Gates as the API shows them."""
    return ["anon" if gate is Gate.ANON else "auth" for gate in gates]


def checked_recipients(patterns: Sequence[str]) -> tuple[str, ...]:
    """Patterns in canonical form, each once. InvalidError for what is none."""
    return tuple(dict.fromkeys(_address_pattern(pattern) for pattern in patterns))


def checked_schedule(body: ScheduleConditionBody) -> ScheduleCondition:
    """InvalidError for a time zone that is none."""
    try:
        checked_zone(body.timezone)
    except ValueError as error:
        raise InvalidError("invalid_timezone", str(error)) from error
    days = tuple(day for day in Weekday if day in body.days)
    return ScheduleCondition(timezone=body.timezone, days=days, begin=_minutes(body.begin), end=_minutes(body.end))


def shown_schedule(condition: ScheduleCondition) -> ScheduleConditionBody:
    """A schedule as the API shows it."""
    begin, end = (f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (condition.begin, condition.end))
    return ScheduleConditionBody(type="schedule", timezone=condition.timezone, days=list(condition.days), begin=begin, end=end)


def _minutes(time: str) -> int:
    return int(time[:2]) * 60 + int(time[3:])


def _address_pattern(text: str) -> str:
    try:
        return normalise_address_pattern(text)
    except ValueError as error:
        raise InvalidError("invalid_pattern", str(error)) from error
