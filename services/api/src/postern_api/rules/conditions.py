"""Conditions at the HTTP edge: what each may hold, and the way to the policy's own and back. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Whole
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
from postern_api.rules.message_conditions import (
    AuthenticationBody,
    CharsetBody,
    HeaderBody,
    LanguageBody,
    MessageBody,
    ScriptBody,
    message_condition,
    shown_message_condition,
)
from postern_api.rules.values import Expressions, Lines, ListNames, checked_values, list_names, some
from postern_core.policy import (
    AllOf,
    AnyOf,
    AttachmentCondition,
    AuthenticationCondition,
    CharsetCondition,
    Condition,
    HeaderCondition,
    KeywordCondition,
    KeywordScope,
    LanguageCondition,
    ListKind,
    MalformedCondition,
    Not,
    ScriptCondition,
    SenderCondition,
    SpamCondition,
    VirusCondition,
    YaraCondition,
)
from postern_core.policy.conditions import MOST_NESTED, nesting


class SenderBody(Body):
    """The reverse-path, or an address in From:, matches any of the patterns."""

    type: Literal["sender"]
    patterns: Lines = Field(default=[], description="Addresses, domains, or `*.domain`.")
    lists: ListNames = Field(default=[])


class KeywordBody(Body):
    """Any of the phrases or regular expressions, or at least so many different ones, stand where `scope` says; caseless."""

    type: Literal["keyword"]
    phrases: Lines = Field(default=[])
    expressions: Expressions = Field(default=[], description="Regular expressions, matched against text in lower case.")
    lists: ListNames = Field(default=[])
    scope: KeywordScope = Field(
        default=KeywordScope.BOTH, description="`both` is header and body; `all` is what attachments say as well."
    )
    whole_word: Flag = Field(default=False, description="Phrases not inside longer words.")
    at_least: Whole = Field(default=1, ge=1, le=100_000, description="How many different ones the message must have.")


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
    SenderBody
    | AttachmentBody
    | KeywordBody
    | EnvelopeBody
    | MessageBody
    | MalformedBody
    | EngineBody
    | AllBody
    | AnyBody
    | NotBody,
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
        case SenderBody(patterns=patterns, lists=lists):
            some(patterns, lists, "patterns")
            return SenderCondition(patterns=checked_values(ListKind.SENDERS, patterns), lists=list_names(lists))
        case KeywordBody():
            some([*body.phrases, *body.expressions], body.lists, "phrases, expressions")
            return KeywordCondition(
                phrases=checked_values(ListKind.PHRASES, body.phrases),
                expressions=checked_values(ListKind.EXPRESSIONS, body.expressions),
                lists=list_names(body.lists),
                scope=body.scope,
                whole_word=body.whole_word,
                at_least=body.at_least,
            )
        case AttachmentBody():
            return attachment_condition(body)
        case RecipientBody() | ScheduleConditionBody() | DirectionBody() | ClientBody() | UserBody() | SizeBody():
            return checked_envelope_condition(body)
        case MalformedBody():
            return MalformedCondition()
        case VirusBody() | SpamBody() | YaraBody():
            return engine_condition(body)
        case HeaderBody() | CharsetBody() | ScriptBody() | LanguageBody() | AuthenticationBody():
            return message_condition(body)


def shown_condition(condition: Condition) -> ConditionBody:
    """A condition as the API shows it."""
    match condition:
        case AllOf(of=parts):
            return AllBody(type="all", of=[shown_condition(part) for part in parts])
        case AnyOf(of=parts):
            return AnyBody(type="any", of=[shown_condition(part) for part in parts])
        case Not(of=part):
            return NotBody(type="not", of=shown_condition(part))
        case SenderCondition(patterns=patterns, lists=lists):
            return SenderBody(type="sender", patterns=list(patterns), lists=list(lists))
        case AttachmentCondition():
            return shown_attachment(condition)
        case KeywordCondition():
            return KeywordBody(
                type="keyword",
                phrases=list(condition.phrases),
                expressions=list(condition.expressions),
                lists=list(condition.lists),
                scope=condition.scope,
                whole_word=condition.whole_word,
                at_least=condition.at_least,
            )
        case MalformedCondition():
            return MalformedBody(type="malformed")
        case VirusCondition() | SpamCondition() | YaraCondition():
            return shown_engine_condition(condition)
        case HeaderCondition() | CharsetCondition() | ScriptCondition() | LanguageCondition() | AuthenticationCondition():
            return shown_message_condition(condition)
        case _:
            return shown_envelope_condition(condition)
