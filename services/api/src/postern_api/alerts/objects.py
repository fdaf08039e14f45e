"""The policy of alerts: when an event is raised, and whom that is told. Part of the revisions; no service reads it but the api."""

from __future__ import annotations

from typing import Final

import msgspec

UNTIL_RESET: Final = -1


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When events become an alert: all three must hold at once (ISA Server's EventsBeforeRaise, MinEventsPerSecond, MinutesBeforeReRaise)."""

    events_before_raise: int = 1  # since the last raise, or the reset; at least 1
    events_per_second: int = 0  # within one second; 0: any
    minutes_before_reraise: int = 0  # n > 0: not within n minutes of the last; 0: at once; -1: not until it is reset
    enabled: bool = True  # else events are counted, and none is raised
    notify: bool = True  # by the channels; else a raise stands in the list and nowhere else


class AlertChannels(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whom alerts are told. Nobody, until somebody is named."""

    mail_to: tuple[str, ...] = ()
    webhooks: tuple[str, ...] = ()
    most_per_hour: int = 20  # to each of them; what comes on top is withheld, and stands in the list


class AlertAction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an alert of a kind does beside telling: nothing, unless an administrator says so. Never a program."""

    pause: tuple[str, ...] = ()  # gates: "anon", "auth"
    resume_at_reset: bool = False  # open those again that it paused, when it is reset


class AlertPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Thresholds of those kinds that are not to have the catalogue's, by name; and the channels."""

    thresholds: dict[str, Thresholds] = {}
    channels: AlertChannels = AlertChannels()
    actions: dict[str, AlertAction] = {}  # by kind
