"""Conditions about what a message says of itself, at the HTTP edge: header fields, charsets, scripts, languages, authentication. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import Field, Strict

from postern_api.errors import InvalidError
from postern_api.fields import Body, Line
from postern_api.rules.values import FewLines, Lines, ListNames, checked_expressions, checked_phrases, trimmed
from postern_core.authentication import Method, Result
from postern_core.policy import (
    AuthenticationCondition,
    CharsetCondition,
    HeaderCondition,
    HeaderMatch,
    LanguageCondition,
    Script,
    ScriptCondition,
)
from postern_core.policy.languages import checked_languages

_FIELD_NAME: Final = re.compile(r"[!-9;-~]{1,100}")  # RFC 5322 section 2.2


class HeaderBody(Body):
    """A field of the message's own header is there, or one of its occurrences says something."""

    type: Literal["header"]
    name: Line = Field(description="Of the field, caseless, as in X-Mailer.")
    match: HeaderMatch = Field(
        default=HeaderMatch.PRESENT,
        description="`present`; `contains` or `equals` any of the phrases in `values`, compared as keywords are; or `regex`: any of the expressions in `values` matches.",
    )
    values: Lines = Field(default=[], description="Phrases, or regular expressions.")
    lists: ListNames = Field(default=[])


class CharsetBody(Body):
    """A text of the message says that it is in one of these charsets, or looks as if it were."""

    type: Literal["charset"]
    charsets: FewLines = Field(min_length=1, description="Names as in mail, caseless: koi8-r, windows-1251.")


class ScriptBody(Body):
    """More than so many percent of the letters in texts and subject are of these scripts, taken together."""

    type: Literal["script"]
    scripts: list[Script] = Field(min_length=1, max_length=len(Script))
    more_than_percent: Annotated[float, Strict()] = Field(default=30.0, ge=0, lt=100, allow_inf_nan=False)


class LanguageBody(Body):
    """The text is, for the greater part and without doubt, in one of these languages."""

    type: Literal["language"]
    languages: FewLines = Field(min_length=1, description="ISO 639-1 codes: de, fr. One that cannot be told is refused by name.")


class AuthenticationBody(Body):
    """What the gate found when it asked whether the message is from whom it says. Never holds where the gate does not ask."""

    type: Literal["authentication"]
    method: Method
    results: list[Result] = Field(min_length=1, max_length=len(Result))


MessageBody = HeaderBody | CharsetBody | ScriptBody | LanguageBody | AuthenticationBody
MessageCondition = HeaderCondition | CharsetCondition | ScriptCondition | LanguageCondition | AuthenticationCondition


def message_condition(body: MessageBody) -> MessageCondition:
    """InvalidError for one that could never match."""
    match body:
        case HeaderBody():
            return _header(body)
        case CharsetBody(charsets=charsets):
            return CharsetCondition(charsets=trimmed(charsets, "charset"))
        case ScriptBody(scripts=scripts, more_than_percent=percent):
            return ScriptCondition(scripts=tuple(dict.fromkeys(scripts)), more_than_percent=percent)
        case LanguageBody(languages=languages):
            return LanguageCondition(languages=_languages(languages))
        case AuthenticationBody(method=method, results=results):
            return AuthenticationCondition(method=method, results=tuple(dict.fromkeys(results)))


def shown_message_condition(condition: MessageCondition) -> MessageBody:
    """As the API shows it."""
    match condition:
        case HeaderCondition(name=name, match=matching, values=values, lists=lists):
            return HeaderBody(type="header", name=name, match=matching, values=list(values), lists=list(lists))
        case CharsetCondition(charsets=charsets):
            return CharsetBody(type="charset", charsets=list(charsets))
        case ScriptCondition(scripts=scripts, more_than_percent=percent):
            return ScriptBody(type="script", scripts=list(scripts), more_than_percent=percent)
        case LanguageCondition(languages=known):
            return LanguageBody(type="language", languages=list(known))
        case AuthenticationCondition(method=method, results=results):
            return AuthenticationBody(type="authentication", method=method, results=list(results))


def _languages(codes: list[str]) -> tuple[str, ...]:
    try:
        return checked_languages(codes)
    except ValueError as error:
        raise InvalidError("invalid_condition", str(error)) from error


def _header(body: HeaderBody) -> HeaderCondition:
    name = body.name.strip()
    if not _FIELD_NAME.fullmatch(name):
        raise InvalidError("invalid_condition", f"{body.name!r} cannot name a header field")
    has_values = bool(body.values or body.lists)
    if has_values == (body.match is HeaderMatch.PRESENT):
        wants = "takes no values" if has_values else "needs values or lists"
        raise InvalidError("invalid_condition", f"match {body.match} {wants}")
    checked = checked_expressions(body.values) if body.match is HeaderMatch.REGEX else checked_phrases(body.values)
    return HeaderCondition(name=name, match=body.match, values=checked, lists=tuple(dict.fromkeys(body.lists)))
