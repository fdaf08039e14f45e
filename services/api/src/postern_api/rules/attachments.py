"""Conditions on attachments at the HTTP edge. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal

from pydantic import Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Whole
from postern_api.rules.values import Lines, ListNames, checked_values, checked_wildcards, list_names, trimmed
from postern_core.policy import AttachmentCondition, AttachmentMatch, ListKind
from postern_core.policy.conditions import MATCHES_INSIDE, MATCHES_NUMBER, MATCHES_VALUES
from postern_core.policy.file_types import FILE_TYPES, Family, is_type_or_family

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:\*|[a-z0-9!#$&^_.+-]+)")
_MOST_WILDCARDS: Final = 1000  # each is compared by itself
_LISTED: Final = {AttachmentMatch.NAME: ListKind.FILE_NAMES, AttachmentMatch.EXTENSION: ListKind.EXTENSIONS}
_DEEPEST: Final = 4  # archives are opened five levels deep: that there are more than this can be seen


class AttachmentBody(Body):
    """An attachment, or where `inside` says so something in it, has one of these names, extensions or types, or is as `match` says."""

    type: Literal["attachment"]
    match: AttachmentMatch
    values: Lines = Field(
        default=[],
        description="For `name`: whole file names, caseless. `wildcard`: the same with * and ?. `extension`: with or without the dot. "
        "`declared-type`: as in application/pdf or image/*. `real-type`: types and families of the table in docs/reference/screening.md.",
    )
    larger_than_bytes: Whole = Field(default=0, ge=0, le=2**50, description="For `size`: decoded size in bytes, greater than.")
    more_than: Whole = Field(
        default=0, ge=0, le=10_000, description="For `count`: attachments; for `nesting`: archives inside each other, 4 at most."
    )
    inside: Flag = Field(default=False, description="What lies in archives counts too.")
    lists: ListNames = Field(default=[])


def attachment_condition(body: AttachmentBody) -> AttachmentCondition:
    """InvalidError for one that could never match, and for a field that its `match` does not take."""
    match = body.match
    takes = (
        ("values", bool(body.values or body.lists), match in MATCHES_VALUES),
        ("larger_than_bytes", bool(body.larger_than_bytes), match is AttachmentMatch.SIZE),
        ("more_than", bool(body.more_than), match in MATCHES_NUMBER),
    )
    for field, is_given, is_taken in takes:
        if is_taken and not is_given and field != "more_than":  # more than none is something
            raise InvalidError("invalid_condition", f"match {match} takes {field}")
        if is_given and not is_taken:
            raise InvalidError("invalid_condition", f"match {match} takes no {field}")
    if body.inside and match not in MATCHES_INSIDE:
        raise InvalidError("invalid_condition", f"match {match} takes no inside")
    if match is AttachmentMatch.NESTING and body.more_than > _DEEPEST:
        raise InvalidError("invalid_condition", f"nesting is counted up to {_DEEPEST}: what is deeper is `unopened`")
    if body.lists and match not in _LISTED:
        raise InvalidError("invalid_condition", f"match {match} takes no lists")
    return AttachmentCondition(
        match=match,
        values=_values(match, body.values),
        larger_than_bytes=body.larger_than_bytes,
        more_than=body.more_than,
        inside=body.inside,
        lists=list_names(body.lists),
    )


def shown_attachment(condition: AttachmentCondition) -> AttachmentBody:
    """A condition as the API shows it."""
    return AttachmentBody(
        type="attachment",
        match=condition.match,
        values=list(condition.values),
        larger_than_bytes=condition.larger_than_bytes,
        more_than=condition.more_than,
        inside=condition.inside,
        lists=list(condition.lists),
    )


def _values(match: AttachmentMatch, values: list[str]) -> tuple[str, ...]:
    if match in _LISTED:
        return checked_values(_LISTED[match], values)
    if match is AttachmentMatch.DECLARED_TYPE:
        values = [value.strip().lower() for value in values]
        if wrong := [value for value in values if not _MEDIA_TYPE.fullmatch(value)]:
            raise InvalidError("invalid_condition", f"{wrong[0]!r} is no type as in application/pdf or image/*")
    elif match is AttachmentMatch.REAL_TYPE:
        values = [value.strip().lower() for value in values]
        if wrong := [value for value in values if not is_type_or_family(value)]:
            known = ", ".join([*(family.value for family in Family), *FILE_TYPES])
            raise InvalidError("unknown_file_type", f"{wrong[0]!r} is no type or family of files; there are: {known}")
    elif match is AttachmentMatch.WILDCARD:
        if any(not value.strip("*? ") for value in values):
            raise InvalidError("invalid_condition", "a wildcard needs a letter: nothing but * and ? would match every name")
        if len(values) > _MOST_WILDCARDS:
            raise InvalidError("too_many", f"{len(values)} wildcards: at most {_MOST_WILDCARDS} are possible in a condition")
        return checked_wildcards(values)
    return trimmed(values, "value")
