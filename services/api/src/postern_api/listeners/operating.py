"""How a listener is run, at the HTTP edge: `postern_core.policy.operating`."""

from __future__ import annotations

from pydantic import Field

from postern_api.fields import Body, Line, examples
from postern_core.policy import GateState, ListenerState, SessionLogging, SessionLogLevel


class StateBody(Body):
    """Whether the gate takes sessions; it holds over restarts."""

    model_config = examples(
        {"state": "paused"}, {"state": "drained"}, {"state": "open"}, {"state": "paused", "by_alert": "overloaded"}
    )

    state: GateState = Field(
        default=GateState.OPEN,
        description="`paused`: new connections get 421 4.3.2, sessions go on. `drained`: sessions end as well, each after its transaction.",
    )

    by_alert: Line = Field(
        default="",
        description="The kind of alert that paused it, if one did. Leave it out to take the gate over: its reset then opens nothing.",
    )

    def to_object(self) -> ListenerState:
        return ListenerState(state=self.state, by_alert=self.by_alert if self.state is GateState.PAUSED else "")

    @classmethod
    def of(cls, state: ListenerState) -> StateBody:
        return cls(state=state.state, by_alert=state.by_alert)


class LoggingBody(Body):
    """What the session log has of this gate."""

    model_config = examples({"level": "commands"}, {"level": "sessions"})

    level: SessionLogLevel = Field(
        default=SessionLogLevel.SESSIONS,
        description="`sessions`: one record for each, at its end; `commands`: one for each command as well.",
    )

    def to_object(self) -> SessionLogging:
        return SessionLogging(level=self.level)

    @classmethod
    def of(cls, logging: SessionLogging) -> LoggingBody:
        return cls(level=logging.level)
