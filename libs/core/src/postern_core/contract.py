"""Versions of what travels on the bus, and how a head is read.

A contract changes by new fields with defaults, which an older program ignores; anything else is a new version, which an older program
refuses, with an error that names both, and leaves where it is. `libs/core/tests/contracts/` keeps a sample of each that must decode for ever.
"""

from __future__ import annotations

from typing import Final, Literal, TypeVar

import msgspec

CONTRACT_VERSION: Final = 1
Version = Literal[1]  # what this program can read

T = TypeVar("T", bound=msgspec.Struct)


class NotYetReadableError(ValueError):
    """It is JSON that this program does not take: of another version, here or further inside, or with a value of a closed list that it does not
    know. A newer program can read it."""


def written() -> Version:
    """The version that this program writes. A factory, because `omit_defaults` leaves out whatever equals a plain default."""
    return CONTRACT_VERSION


def decode(data: bytes | memoryview, kind: type[T]) -> T:
    """The `kind` in `data` (JSON). NotYetReadableError for what a newer program may have written, with both versions in its text where they
    differ; ValueError for anything else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        version = _version_of(data)
        if version is not None and version != CONTRACT_VERSION:
            raise NotYetReadableError(f"it has contract version {version}, this program knows {CONTRACT_VERSION}") from error
        found = NotYetReadableError if isinstance(error, msgspec.ValidationError) else ValueError
        raise found(f"{kind.__name__} does not decode: {error}") from error


class _Versioned(msgspec.Struct):
    version: int | None = None


def _version_of(data: bytes | memoryview) -> int | None:
    try:
        return msgspec.json.decode(data, type=_Versioned).version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
