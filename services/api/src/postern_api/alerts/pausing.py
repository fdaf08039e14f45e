"""Pausing gates by alerts: the one thing that an alert does beside telling, where an administrator said so for its kind.

It is a change of the policy like any other (revision, audit log, rollback), made by whichever replica of the api carries it out. An open gate is paused,
and marked with the alert's kind; one that an administrator paused or drained is left as it is. With the mark alone it is opened again at the reset,
if that was asked for: who sets the state himself takes the gate over.
"""

from __future__ import annotations

from typing import Final

import msgspec

from postern_api.alerts.catalogue import AlertKind
from postern_api.alerts.objects import AlertAction
from postern_api.policy.editing import Editor, Intent
from postern_api.policy.objects import Snapshot
from postern_core.policy import GateState, ListenerState

GATES: Final = ("anon", "auth")


class NotWantedError(Exception):
    """The policy does not ask for it any more."""


def action_of(snapshot: Snapshot, kind: str) -> AlertAction:
    """What an alert of this kind does."""
    return snapshot.alerts.actions.get(kind, AlertAction())


async def pause(editor: Editor, kind: str, gate: str) -> None:
    """Pause `gate` unless it is not open. NotWantedError when no alert of this kind is to do so; ApiError when it cannot be done now."""

    def edit(snapshot: Snapshot) -> Snapshot:
        if gate not in action_of(snapshot, kind).pause:
            raise NotWantedError(f"alerts of this kind do not pause {gate} any more")
        if _state(snapshot, gate).state is not GateState.OPEN:
            return snapshot
        return _with(snapshot, gate, ListenerState(state=GateState.PAUSED, by_alert=kind))

    intent = Intent(f"alert {kind}", "listener.paused_by_alert", f"listeners/{gate}/state", f"paused by the alert {kind}")
    await editor.change(intent, edit)


async def resume(editor: Editor, kind: AlertKind, actor: str) -> None:
    """Open the gates that alerts of this kind paused, if the policy says that a reset does so. ApiError when it cannot be done now."""

    def edit(snapshot: Snapshot) -> Snapshot:
        if action_of(snapshot, kind.value).resume_at_reset:
            for gate in GATES:
                if _state(snapshot, gate) == ListenerState(state=GateState.PAUSED, by_alert=kind.value):
                    snapshot = _with(snapshot, gate, ListenerState())
        return snapshot

    await editor.change(
        Intent(actor, "listener.resumed_at_reset", f"alerts/{kind.value}", f"the alert {kind.value} was reset"), edit
    )


def _state(snapshot: Snapshot, gate: str) -> ListenerState:
    state: ListenerState = getattr(snapshot, f"{gate}_listener").state
    return state


def _with(snapshot: Snapshot, gate: str, state: ListenerState) -> Snapshot:
    listener = msgspec.structs.replace(getattr(snapshot, f"{gate}_listener"), state=state)
    return msgspec.structs.replace(snapshot, **{f"{gate}_listener": listener})
