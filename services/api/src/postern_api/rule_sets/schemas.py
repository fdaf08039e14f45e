"""Rule sets at the HTTP edge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, FailFast, Field, JsonValue

from postern_api.fields import Body, Line, Name
from postern_api.policy.list_checks import MAX_PHRASES
from postern_api.policy.objects import RuleSetObject, Snapshot
from postern_api.rules.envelope_conditions import ScheduleConditionBody, shown_gates, shown_schedule
from postern_api.rules.schemas import Mode, shown_mode

_EXAMPLE: dict[str, JsonValue] = {
    "name": "sales in office hours",
    "gates": ["anon"],
    "recipients": ["sales.example.com"],
    "schedule": {"type": "schedule", "timezone": "UTC", "days": ["mon", "fri"], "begin": "08:00", "end": "17:00"},
    "mode": "on",
    "note": "",
}


class RuleSetBody(Body):
    """For what mail the rules in the set are. What is left empty does not narrow it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: Name
    gates: list[Literal["anon", "auth"]] = Field(default=[], max_length=2)
    recipients: Annotated[list[Line], FailFast(), Field(max_length=MAX_PHRASES)] = Field(
        default=[], description="Patterns, as in the condition `recipient`."
    )
    schedule: ScheduleConditionBody | None = None
    mode: Mode = Field(default="on", description="`off` and `monitor` hold back every rule in the set, whatever its own mode.")
    note: Line = Field(default="", description="For other administrators.")


class RuleSetView(RuleSetBody):
    """A rule set as it is shown."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE | {"rules": ["r-1a2b3c4d"]}]})

    rules: list[str] = Field(description="Ids of the rules in it, in the order in which they decide.")

    @classmethod
    def of(cls, found: RuleSetObject, snapshot: Snapshot) -> RuleSetView:
        return cls(
            name=found.name,
            gates=shown_gates(found.gates),
            recipients=list(found.recipients),
            schedule=None if found.schedule is None else shown_schedule(found.schedule),
            mode=shown_mode(enabled=found.enabled, monitor=found.monitor),
            note=found.note,
            rules=[rule.id for rule in snapshot.rules if rule.rule_set == found.name],
        )
