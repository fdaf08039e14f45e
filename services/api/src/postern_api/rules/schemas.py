"""Rules at the HTTP edge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, FailFast, Field, JsonValue

from postern_api.fields import Body, Flag, Line, Name, Whole, examples
from postern_api.policy.checks import MAX_PHRASES
from postern_api.policy.objects import RuleObject
from postern_core.policy import AttachmentCondition, AttachmentMatch, KeywordCondition, KeywordScope, SenderCondition
from postern_core.verdict import Action

# the first that is wrong is told: a hundred thousand sentences about as many values would help nobody
Lines = Annotated[list[Line], FailFast(), Field(max_length=MAX_PHRASES)]
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
]


class SenderBody(Body):
    """The reverse-path, or an address in From:, matches any of the patterns."""

    type: Literal["sender"]
    patterns: Lines = Field(description="Addresses, domains, or `*.domain`.", min_length=1)


class AttachmentBody(Body):
    """An attachment has one of these names or extensions, or is larger than a size."""

    type: Literal["attachment"]
    match: AttachmentMatch
    values: Lines = Field(default=[], description="File names (whole, caseless), or extensions (with or without the dot).")
    larger_than_bytes: Whole = Field(default=0, ge=0, le=2**50, description="For `size`: decoded size in bytes, greater than.")


class KeywordBody(Body):
    """Any of the phrases stands in the header, the body, or either; caseless."""

    type: Literal["keyword"]
    phrases: Lines = Field(min_length=1)
    scope: KeywordScope = KeywordScope.BOTH
    whole_word: Flag = Field(default=False, description="Not inside longer words.")


ConditionBody = Annotated[SenderBody | AttachmentBody | KeywordBody, Field(discriminator="type")]


class RuleBody(Body):
    """What to look for, and what to do with a message that has it. The first rule that matches decides."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    name: Name
    enabled: Flag = True
    condition: ConditionBody
    action: Action = Field(description="`delete`, `hold` in quarantine, or `forward` to `forward_to` instead of its recipients.")
    forward_to: Line = Field(default="", description="Address, with action `forward`.")
    id: str | None = Field(default=None, max_length=64, description="As shown; ignored here.")


class RuleView(Body):
    """A rule as it is shown."""

    model_config = examples(
        {
            "id": "r-1a2b3c4d",
            "name": "no programs",
            "enabled": True,
            "condition": {"type": "attachment", "match": "extension", "values": ["exe"]},
            "action": "hold",
            "forward_to": "",
        }
    )

    id: str
    name: str
    enabled: bool
    condition: ConditionBody
    action: Action
    forward_to: str

    @classmethod
    def of(cls, rule: RuleObject) -> RuleView:
        return cls(
            id=rule.id,
            name=rule.name,
            enabled=rule.enabled,
            condition=_shown(rule),
            action=rule.action,
            forward_to=rule.forward_to,
        )


class RuleOrder(Body):
    """All rules, in the order in which they are to decide."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": ["r-1a2b3c4d", "r-9f8e7d6c"]}]})

    ids: Annotated[list[Annotated[str, Field(max_length=64)]], FailFast(), Field(max_length=10_000)]


def _shown(rule: RuleObject) -> SenderBody | AttachmentBody | KeywordBody:
    match rule.condition:
        case SenderCondition(patterns=patterns):
            return SenderBody(type="sender", patterns=list(patterns))
        case AttachmentCondition(match=match, values=values, larger_than_bytes=size):
            return AttachmentBody(type="attachment", match=match, values=list(values), larger_than_bytes=size)
        case KeywordCondition(phrases=phrases, scope=scope, whole_word=whole_word):
            return KeywordBody(type="keyword", phrases=list(phrases), scope=scope, whole_word=whole_word)
