"""Conditions at the HTTP edge: what each may hold, and the way to the policy's own and back. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag
from postern_api.policy.addresses import checked_sender_pattern
from postern_api.rules.attachments import AttachmentBody, attachment_condition, shown_attachment
from postern_api.rules.engine_conditions import (
    EngineBody,
    SpamBody,
    VirusBody,
    YaraBody,
    engine_condition,
    shown_engine_condition,
)
from postern_api.rules.envelope_conditions import (
    ClientBody,
    DirectionBody,
    EnvelopeBody,
    RecipientBody,
    ScheduleConditionBody,
    SizeBody,
    UserBody,
    checked_envelope_condition,
    shown_envelope_condition,
)
from postern_api.rules.values import Lines, checked_values
from postern_core.policy import (
    AllOf,
    AnyOf,
    AttachmentCondition,
    Condition,
    KeywordCondition,
    KeywordScope,
    MalformedCondition,
    Not,
    SenderCondition,
    SpamCondition,
    VirusCondition,
    YaraCondition,
)
from postern_core.policy.conditions import MOST_NESTED, nesting


class SenderBody(Body):
    """The reverse-path, or an address in From:, matches any of the patterns."""

    type: Literal["sender"]
    patterns: Lines = Field(description="Addresses, domains, or `*.domain`.", min_length=1)


class KeywordBody(Body):
    """Any of the phrases stands in the header, the body, or either; caseless."""

    type: Literal["keyword"]
    phrases: Lines = Field(min_length=1)
    scope: KeywordScope = KeywordScope.BOTH
    whole_word: Flag = Field(default=False, description="Not inside longer words.")


class MalformedBody(Body):
    """Mail programs may take the message for different ones, so that it would be held if no rule decided."""

    type: Literal["malformed"]


class AllBody(Body):
    """Every one of the conditions holds."""

    type: Literal["all"]
    of: list[ConditionBody] = Field(min_length=1, max_length=100)


class AnyBody(Body):
    """At least one of the conditions holds."""

    type: Literal["any"]
    of: list[ConditionBody] = Field(min_length=1, max_length=100)


class NotBody(Body):
    """The condition does not hold."""

    type: Literal["not"]
    of: ConditionBody


ConditionBody = Annotated[
    SenderBody | AttachmentBody | KeywordBody | EnvelopeBody | MalformedBody | EngineBody | AllBody | AnyBody | NotBody,
    Field(discriminator="type"),
]
for _model in (AllBody, AnyBody, NotBody):
    _model.model_rebuild()


def checked_condition(body: ConditionBody) -> Condition:
    """InvalidError for one that could never match or always would, and for one that nests too deep."""
    condition = _condition(body)
    if nesting(condition) > MOST_NESTED:
        raise InvalidError("invalid_condition", f"conditions may nest {MOST_NESTED} levels deep, not {nesting(condition)}")
    return condition


def _condition(body: ConditionBody) -> Condition:
    match body:
        case AllBody(of=parts):
            return AllOf(of=tuple(_condition(part) for part in parts))
        case AnyBody(of=parts):
            return AnyOf(of=tuple(_condition(part) for part in parts))
        case NotBody(of=part):
            return Not(of=_condition(part))
        case SenderBody(patterns=patterns):
            return SenderCondition(patterns=tuple(dict.fromkeys(checked_sender_pattern(pattern) for pattern in patterns)))
        case KeywordBody(phrases=phrases, scope=scope, whole_word=whole_word):
            return KeywordCondition(phrases=checked_values(phrases, "phrase"), scope=scope, whole_word=whole_word)
        case AttachmentBody():
            return attachment_condition(body)
        case RecipientBody() | ScheduleConditionBody() | DirectionBody() | ClientBody() | UserBody() | SizeBody():
            return checked_envelope_condition(body)
        case MalformedBody():
            return MalformedCondition()
        case VirusBody() | SpamBody() | YaraBody():
            return engine_condition(body)


def shown_condition(condition: Condition) -> ConditionBody:
    """A condition as the API shows it."""
    match condition:
        case AllOf(of=parts):
            return AllBody(type="all", of=[shown_condition(part) for part in parts])
        case AnyOf(of=parts):
            return AnyBody(type="any", of=[shown_condition(part) for part in parts])
        case Not(of=part):
            return NotBody(type="not", of=shown_condition(part))
        case SenderCondition(patterns=patterns):
            return SenderBody(type="sender", patterns=list(patterns))
        case AttachmentCondition():
            return shown_attachment(condition)
        case KeywordCondition(phrases=phrases, scope=scope, whole_word=whole_word):
            return KeywordBody(type="keyword", phrases=list(phrases), scope=scope, whole_word=whole_word)
        case MalformedCondition():
            return MalformedBody(type="malformed")
        case VirusCondition() | SpamCondition() | YaraCondition():
            return shown_engine_condition(condition)
        case _:
            return shown_envelope_condition(condition)
