"""Field types that several nouns share, and the base of all bodies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, Strict


class Body(BaseModel):
    """A JSON object of the API: a field that is not known is an error, not a typing mistake that goes unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def examples(*values: dict[str, JsonValue]) -> ConfigDict:
    """A `model_config` that shows these examples in the OpenAPI document; a test validates each against its own model."""
    return ConfigDict(json_schema_extra={"examples": list(values)})


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


Line = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
Seconds = Annotated[float, Strict(), Field(gt=0, le=10 * 365 * 86400, allow_inf_nan=False)]
# in a payload "no" is no boolean, and true no number
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
# what is looked for, and names in a path: PostgreSQL's text holds no NUL, and nothing that is looked for holds control characters
Part = Annotated[str, Query(max_length=320, description="Part of it, caseless."), AfterValidator(_printable)]
Exactly = Annotated[str, Query(max_length=320), AfterValidator(_printable)]
Identity = Annotated[str, Path(max_length=320), AfterValidator(_printable)]
Limit = Annotated[int, Field(ge=1, le=1000, description="Most rows to return.")]
