"""Values of conditions and lists, in canonical form: what each kind may hold. Pure; a hundred thousand take a second."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from pydantic import FailFast, Field

from postern_api.errors import InvalidError
from postern_api.fields import Line
from postern_api.policy.addresses import checked_sender_pattern
from postern_api.policy.list_checks import MAX_PHRASE_CHARACTERS, MAX_PHRASES
from postern_core.expressions import MAX_EXPRESSION_CHARACTERS, MAX_EXPRESSIONS
from postern_core.file_names import compared_value
from postern_core.policy import AttachmentMatch, ListKind
from postern_core.policy.networks import normalise_network
from postern_core.unicode_forms import UNSEEN

# the first that is wrong is told: a hundred thousand sentences about as many values would help nobody
Lines = Annotated[list[Line], FailFast(), Field(max_length=MAX_PHRASES)]
FewLines = Annotated[list[Line], FailFast(), Field(max_length=1000)]
Expressions = Annotated[list[Line], FailFast(), Field(max_length=MAX_EXPRESSIONS)]
ListNames = Annotated[
    list[Annotated[str, Field(max_length=64)]],
    FailFast(),
    Field(max_length=100, description="Names of lists whose values count as well."),
]

_NOUNS: Final = {
    ListKind.PHRASES: "phrase",
    ListKind.EXPRESSIONS: "expression",
    ListKind.SENDERS: "pattern",
    ListKind.NETWORKS: "network",
    ListKind.USERS: "name",
    ListKind.EXTENSIONS: "value",
    ListKind.FILE_NAMES: "value",
}


def checked_values(kind: ListKind, values: Iterable[str]) -> tuple[str, ...]:
    """In canonical form, in their order, each once. InvalidError for one that could match nothing, or everything."""
    match kind:
        case ListKind.SENDERS:
            return tuple(dict.fromkeys(checked_sender_pattern(value) for value in values))
        case ListKind.NETWORKS:
            return tuple(dict.fromkeys(checked_network(value) for value in values))
        case ListKind.EXTENSIONS:
            bare = [value.strip().removeprefix("*").removeprefix(".") for value in values]
            if any("." in value or "/" in value for value in bare):
                raise InvalidError("invalid_condition", "an extension is what stands behind the last dot, as in exe")
            return _file_names(AttachmentMatch.EXTENSION, trimmed(bare, _NOUNS[kind]))
        case ListKind.FILE_NAMES:
            return _file_names(AttachmentMatch.NAME, trimmed(values, _NOUNS[kind]))
        case ListKind.EXPRESSIONS:
            return checked_expressions(values)
        case ListKind.PHRASES:
            return checked_phrases(values)
        case _:
            return trimmed(values, _NOUNS[kind])


def checked_phrases(values: Iterable[str]) -> tuple[str, ...]:
    """InvalidError also for one of which nothing is left when it is compared: a screener would refuse the whole policy for it."""
    phrases = trimmed(values, _NOUNS[ListKind.PHRASES])
    for phrase in phrases:
        if not phrase.isascii() and not UNSEEN.sub("", phrase).strip():
            raise InvalidError("invalid_condition", f"a phrase shows nothing: {phrase!a}")
    return phrases


def checked_wildcards(values: Iterable[str]) -> tuple[str, ...]:
    """As `checked_values`, for wildcards, of which there is no list."""
    return _file_names(AttachmentMatch.WILDCARD, trimmed(values, "value"))


def _file_names(match: AttachmentMatch, values: tuple[str, ...]) -> tuple[str, ...]:
    """InvalidError for one of which nothing is left when names are compared: a screener would refuse the whole policy for it."""
    for value in values:
        try:
            compared_value(match, value)
        except ValueError as error:
            raise InvalidError("invalid_condition", str(error)) from error
    return values


def checked_expressions(expressions: Iterable[str]) -> tuple[str, ...]:
    """Within bounds; whether they compile is seen when the whole policy is checked. Blanks at both ends mean themselves."""
    kept = tuple(dict.fromkeys(expressions))
    if "" in kept:
        raise InvalidError("invalid_condition", "an expression is empty: it would match every message")
    if any(len(expression) > MAX_EXPRESSION_CHARACTERS for expression in kept):
        raise InvalidError("invalid_condition", f"an expression has more than {MAX_EXPRESSION_CHARACTERS} characters")
    return kept


def checked_network(text: str) -> str:
    try:
        return normalise_network(text)
    except ValueError as error:
        raise InvalidError("invalid_network", str(error)) from error


def trimmed(values: Iterable[str], noun: str) -> tuple[str, ...]:
    """Trimmed and without repetitions."""
    kept = dict.fromkeys(value.strip() for value in values)
    if "" in kept:
        raise InvalidError("invalid_condition", f"a {noun} is empty: it would match every message or none")
    if any(len(value) > MAX_PHRASE_CHARACTERS for value in kept):
        raise InvalidError("invalid_condition", f"a {noun} has more than {MAX_PHRASE_CHARACTERS} characters")
    return tuple(kept)


def some(values: Sequence[str], lists: Sequence[str], nouns: str) -> None:
    """InvalidError for a condition that has neither."""
    if not values and not lists:
        raise InvalidError("invalid_condition", f"it needs {nouns} or lists: without them it would match no message")


def list_names(lists: Sequence[str]) -> tuple[str, ...]:
    """Each once."""
    return tuple(dict.fromkeys(lists))
