"""Conditions that engines answer, at the HTTP edge. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import FailFast, Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Line
from postern_core.policy import SpamCondition, VirusCondition, YaraCondition

_Names = Annotated[list[Line], FailFast(), Field(max_length=1000)]
_MOST_CHARACTERS = 200


class VirusBody(Body):
    """ClamAV found a virus; needs the engine clamd."""

    type: Literal["virus"]
    names: _Names = Field(default=[], description="Wildcards for its name, as in `Win.Trojan.*`, caseless; none: any virus.")


class SpamBody(Body):
    """rspamd gave at least a score, or one of these actions; needs the engine rspamd."""

    type: Literal["spam"]
    at_least: float | None = Field(default=None, ge=-1e6, le=1e6, allow_inf_nan=False)
    actions: _Names = Field(default=[], description="As rspamd names them: `reject`, `add header` …, caseless.")


class YaraBody(Body):
    """A rule of an uploaded YARA file matched: one with such a name or such a tag, or any; needs the engine yara."""

    type: Literal["yara"]
    rules: _Names = Field(default=[], description="Names of rules.")
    tags: _Names = Field(default=[], description="Tags of rules.")


EngineBody = VirusBody | SpamBody | YaraBody


def engine_condition(body: EngineBody) -> VirusCondition | SpamCondition | YaraCondition:
    """InvalidError for one that could never match or always would."""
    match body:
        case VirusBody(names=names):
            return VirusCondition(names=_checked(names))
        case SpamBody(at_least=least, actions=actions):
            if least is None and not actions:
                raise InvalidError("invalid_condition", "spam takes at_least, or actions, or both")
            return SpamCondition(at_least=least, actions=_checked(actions))
        case YaraBody(rules=rules, tags=tags):
            return YaraCondition(rules=_checked(rules), tags=_checked(tags))


def shown_engine_condition(condition: VirusCondition | SpamCondition | YaraCondition) -> EngineBody:
    """A condition as the API shows it."""
    match condition:
        case VirusCondition(names=names):
            return VirusBody(type="virus", names=list(names))
        case SpamCondition(at_least=least, actions=actions):
            return SpamBody(type="spam", at_least=least, actions=list(actions))
        case YaraCondition(rules=rules, tags=tags):
            return YaraBody(type="yara", rules=list(rules), tags=list(tags))


def _checked(names: list[str]) -> tuple[str, ...]:
    kept = dict.fromkeys(name.strip() for name in names)
    if any(not 0 < len(name) <= _MOST_CHARACTERS for name in kept):
        raise InvalidError("invalid_condition", f"a name has 1 to {_MOST_CHARACTERS} characters")
    return tuple(kept)
