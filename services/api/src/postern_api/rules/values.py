"""Lists of values in conditions, as several kinds of condition have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import FailFast, Field

from postern_api.errors import InvalidError
from postern_api.fields import Line
from postern_api.policy.checks import MAX_PHRASE_CHARACTERS, MAX_PHRASES

# the first that is wrong is told: a hundred thousand sentences about as many values would help nobody
Lines = Annotated[list[Line], FailFast(), Field(max_length=MAX_PHRASES)]


def checked_values(values: Iterable[str], noun: str) -> tuple[str, ...]:
    """Trimmed and without repetitions."""
    kept = dict.fromkeys(value.strip() for value in values)
    if "" in kept:
        raise InvalidError("invalid_condition", f"a {noun} is empty: it would match every message or none")
    if any(len(value) > MAX_PHRASE_CHARACTERS for value in kept):
        raise InvalidError("invalid_condition", f"a {noun} has more than {MAX_PHRASE_CHARACTERS} characters")
    return tuple(kept)
