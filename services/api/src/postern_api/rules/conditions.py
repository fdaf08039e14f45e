"""Conditions at the HTTP edge: what each may hold, and the way to the policy's own and back. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import FailFast, Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Line, Whole
from postern_api.policy.addresses import checked_sender_pattern
from postern_api.policy.checks import MAX_PHRASE_CHARACTERS, MAX_PHRASES
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
from postern_core.policy import (
    AllOf,
    AnyOf,
    AttachmentCondition,
    AttachmentMatch,
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

# the first that is wrong is told: a hundred thousand sentences about as many values would help nobody
Lines = Annotated[list[Line], FailFast(), Field(max_length=MAX_PHRASES)]


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
            return KeywordCondition(phrases=_values(phrases, "phrase"), scope=scope, whole_word=whole_word)
        case AttachmentBody():
            return _attachment(body)
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
        case AttachmentCondition(match=match, values=values, larger_than_bytes=size):
            return AttachmentBody(type="attachment", match=match, values=list(values), larger_than_bytes=size)
        case KeywordCondition(phrases=phrases, scope=scope, whole_word=whole_word):
            return KeywordBody(type="keyword", phrases=list(phrases), scope=scope, whole_word=whole_word)
        case MalformedCondition():
            return MalformedBody(type="malformed")
        case VirusCondition() | SpamCondition() | YaraCondition():
            return shown_engine_condition(condition)
        case _:
            return shown_envelope_condition(condition)


def _attachment(body: AttachmentBody) -> AttachmentCondition:
    if body.match is AttachmentMatch.SIZE:
        if body.values or not body.larger_than_bytes:
            raise InvalidError("invalid_condition", "match size takes larger_than_bytes, above 0, and no values")
        return AttachmentCondition(match=body.match, larger_than_bytes=body.larger_than_bytes)
    if not body.values or body.larger_than_bytes:
        raise InvalidError("invalid_condition", f"match {body.match} takes values, and no larger_than_bytes")
    values = body.values
    if body.match is AttachmentMatch.EXTENSION:
        values = [value.strip().removeprefix("*").removeprefix(".") for value in values]
        if any("." in value or "/" in value for value in values):
            raise InvalidError("invalid_condition", "an extension is what stands behind the last dot, as in exe")
    return AttachmentCondition(match=body.match, values=_values(values, "value"))


def _values(values: Iterable[str], noun: str) -> tuple[str, ...]:
    """Trimmed and without repetitions."""
    kept = dict.fromkeys(value.strip() for value in values)
    if "" in kept:
        raise InvalidError("invalid_condition", f"a {noun} is empty: it would match every message or none")
    if any(len(value) > MAX_PHRASE_CHARACTERS for value in kept):
        raise InvalidError("invalid_condition", f"a {noun} has more than {MAX_PHRASE_CHARACTERS} characters")
    return tuple(kept)
