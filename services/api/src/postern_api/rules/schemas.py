"""Rules at the HTTP edge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, FailFast, Field, JsonValue

from postern_api.fields import Body, Line, Name, examples
from postern_api.policy.objects import RuleObject
from postern_api.rules.changes import ChangeBody, Changes, shown_change
from postern_api.rules.conditions import ConditionBody, shown_condition
from postern_core.verdict import Action

_EXAMPLES: list[JsonValue] = [
    {
        "name": "no programs",
        "condition": {"type": "attachment", "match": "extension", "values": ["exe", "scr", "js"]},
        "action": "hold",
    },
    {
        "name": "bulk senders",
        "condition": {"type": "sender", "patterns": ["*.bulk.example", "spam@example.org"]},
        "action": "delete",
    },
    {
        "name": "payment fraud",
        "condition": {"type": "keyword", "phrases": ["urgent wire transfer"], "scope": "both", "whole_word": True},
        "action": "forward",
        "forward_to": "abuse@example.com",
    },
    {
        "name": "programs from outside",
        "mode": "monitor",
        "condition": {
            "type": "all",
            "of": [
                {"type": "direction", "gates": ["anon"]},
                {"type": "attachment", "match": "extension", "values": ["exe"]},
            ],
        },
        "unless": {"type": "sender", "patterns": ["partner.example"]},
        "action": "delete",
    },
    {
        "name": "macros are taken out",
        "condition": {"type": "attachment", "match": "extension", "values": ["docm", "xlsm"]},
        "action": "continue",
        "changes": [
            {"type": "strip-attachments"},
            {"type": "tag-subject", "text": "[stripped]"},
            {"type": "copy-to", "address": "security@example.com"},
        ],
    },
]
Mode = Literal["off", "monitor", "on"]


class RuleBody(Body):
    """What to look for, and what to do with a message that has it. The first rule in mode `on` that matches decides."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    name: Name
    mode: Mode = Field(default="on", description="`monitor` only records what the rule would do.")
    condition: ConditionBody
    unless: ConditionBody | None = Field(default=None, description="The rule does not match a message of which this holds.")
    action: Action = Field(
        description="`delete`, `hold` in quarantine, `forward` to `forward_to` instead of its recipients, `allow`: pass, whatever later rules say, or `continue`: make the changes, and let later rules decide."
    )
    forward_to: Line = Field(default="", description="Address, with action `forward`.")
    rule_set: Line = Field(default="", description="Name of the rule set that it is in; empty: it is for all mail.")
    changes: Changes = Field(
        default=[],
        description="What is done to a message that goes on, in this order. With `delete` and `hold`: `copy-to` and `notify` only.",
    )
    id: str | None = Field(default=None, max_length=64, description="As shown; ignored here.")


class RuleView(Body):
    """A rule as it is shown."""

    model_config = examples(
        {
            "id": "r-1a2b3c4d",
            "name": "no programs",
            "mode": "on",
            "condition": {"type": "attachment", "match": "extension", "values": ["exe"]},
            "unless": None,
            "action": "hold",
            "forward_to": "",
            "rule_set": "",
            "changes": [{"type": "notify", "address": "security@example.com"}],
        }
    )

    id: str
    name: str
    mode: Mode
    condition: ConditionBody
    unless: ConditionBody | None
    action: Action
    forward_to: str
    rule_set: str
    changes: list[ChangeBody]

    @classmethod
    def of(cls, rule: RuleObject) -> RuleView:
        return cls(
            id=rule.id,
            name=rule.name,
            mode=shown_mode(enabled=rule.enabled, monitor=rule.monitor),
            condition=shown_condition(rule.condition),
            unless=None if rule.unless is None else shown_condition(rule.unless),
            action=rule.action,
            forward_to=rule.forward_to,
            rule_set=rule.rule_set,
            changes=[shown_change(change) for change in rule.changes],
        )


class RuleOrder(Body):
    """All rules, in the order in which they are to decide."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": ["r-1a2b3c4d", "r-9f8e7d6c"]}]})

    ids: Annotated[list[Annotated[str, Field(max_length=64)]], FailFast(), Field(max_length=10_000)]


def shown_mode(*, enabled: bool, monitor: bool) -> Mode:
    """The mode of a rule, or of a set of them."""
    if not enabled:
        return "off"
    return "monitor" if monitor else "on"
