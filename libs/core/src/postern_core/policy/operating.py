"""How a listener is run: whether it takes mail now, and what its session log holds. Parts of `ListenerPolicy`."""

from __future__ import annotations

import enum

import msgspec


class GateState(enum.StrEnum):
    """Whether a gate takes sessions."""

    OPEN = "open"
    PAUSED = "paused"  # new connections get 421 4.3.2, sessions go on
    DRAINED = "drained"  # as paused, and each session ends with 421 4.3.2 as soon as it has no transaction


class ListenerState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state that an administrator wants; it holds until he wants another, over restarts, too."""

    state: GateState = GateState.OPEN
    by_alert: str = ""  # the kind of alert that paused it; "": an administrator, or nobody


class SessionLogLevel(enum.StrEnum):
    """What the session log has."""

    OFF = "off"
    SESSIONS = "sessions"  # one record for each session, at its end
    COMMANDS = "commands"  # one for each command as well


class SessionLogging(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The switch of the session log; a session keeps the level that it began with."""

    level: SessionLogLevel = SessionLogLevel.SESSIONS
