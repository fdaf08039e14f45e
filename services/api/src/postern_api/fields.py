"""Field types that several nouns share, and the base of all bodies."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Body(BaseModel):
    """A JSON object of the API: a field that is not known is an error, not a typing mistake that goes unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


Line = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400, allow_inf_nan=False)]
Limit = Annotated[int, Field(ge=1, le=1000, description="Most rows to return.")]
