"""Edits of the named lists: snapshot in, snapshot out. Pure; long lists take a second."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from postern_api.errors import ConflictError, InvalidError, NotFoundError
from postern_api.lists.schemas import used_by
from postern_api.policy.list_checks import MAX_PHRASES
from postern_api.policy.objects import ListObject, Snapshot
from postern_api.rules.values import checked_values
from postern_core.policy import ListKind

MAX_LINE: Final = 1000  # characters


def text_of(kind: ListKind, data: bytes) -> str:
    """Values of this kind in canonical form, one a line, of text with one a line; empty lines are nothing. InvalidError for what is none."""
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidError("invalid_condition", "the text is not UTF-8") from error
    values = [line.removesuffix("\r") for line in lines if line.strip()]
    _few(values)
    for number, value in enumerate(values, 1):
        if len(value) > MAX_LINE or not value.isprintable():
            reason = f"value {number} is longer than {MAX_LINE} characters, or holds control characters"
            raise InvalidError("invalid_condition", reason)
    return "\n".join(checked_values(kind, values))


def find(snapshot: Snapshot, name: str) -> ListObject:
    for each in snapshot.lists:
        if each.name == name:
            return each
    raise NotFoundError("list", name)


def add(snapshot: Snapshot, listed: ListObject) -> Snapshot:
    return _with(snapshot, (*snapshot.lists, listed))


def replace(snapshot: Snapshot, listed: ListObject) -> Snapshot:
    """ConflictError for another kind: rules count on what it is."""
    if (kind := find(snapshot, listed.name).kind) is not listed.kind:
        raise ConflictError("list_kind_stays", f"list {listed.name!r} holds {kind}, and that stays; make another list")
    return _with(snapshot, [listed if each.name == listed.name else each for each in snapshot.lists])


def with_text(snapshot: Snapshot, name: str, kind: ListKind, text: str) -> Snapshot:
    """`snapshot` with these values, which are of `kind`, in place of those that the list has."""
    return replace(snapshot, msgspec.structs.replace(find(snapshot, name), kind=kind, text=text))


def with_changes(snapshot: Snapshot, name: str, add: Iterable[str], remove: Iterable[str]) -> Snapshot:
    """`snapshot` with values more and less in a list. InvalidError for one that is to be both, and for too many."""
    now = find(snapshot, name)
    added, removed = checked_values(now.kind, add), frozenset(checked_values(now.kind, remove))
    if both := removed.intersection(added):
        raise InvalidError("invalid_condition", f"{min(both)!r} is to be added and removed")
    values = [value for value in dict.fromkeys((*now.values, *added)) if value not in removed]
    _few(values)
    return replace(snapshot, msgspec.structs.replace(now, text="\n".join(values)))


def remove(snapshot: Snapshot, name: str) -> Snapshot:
    """ConflictError while a rule names it."""
    gone = find(snapshot, name)
    if rules := used_by(snapshot, name):
        raise ConflictError("list_in_use", f"list {name!r} is named by rules: {', '.join(rules[:10])}", rules=rules)
    return _with(snapshot, [each for each in snapshot.lists if each is not gone])


def _few(values: Sequence[str]) -> None:
    if len(values) > MAX_PHRASES:
        raise InvalidError("too_many", f"{len(values)} values: a list may have {MAX_PHRASES}")


def _with(snapshot: Snapshot, lists: Iterable[ListObject]) -> Snapshot:
    return msgspec.structs.replace(snapshot, lists=tuple(sorted(lists, key=lambda each: each.name)))
