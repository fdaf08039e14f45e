"""What must hold between rules, lists and their values: every list that a rule names exists and is of the kind that the condition takes, and nobody
asks for more than a screener can hold. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from postern_api.errors import ConflictError, InvalidError
from postern_api.policy.objects import ListObject, RuleObject, Snapshot
from postern_core.expressions import MAX_EXPRESSIONS
from postern_core.policy import (
    AttachmentCondition,
    AttachmentMatch,
    ClientCondition,
    Criterion,
    HeaderCondition,
    HeaderMatch,
    KeywordCondition,
    ListKind,
    RecipientCondition,
    SenderCondition,
    UserCondition,
)
from postern_core.policy.conditions import criteria

MAX_PHRASES: Final = 100_000  # values of one kind in all enabled rules and the lists that they name; and in one list
MAX_PHRASE_CHARACTERS: Final = 1000
MAX_LISTS: Final = 1000
MAX_LISTED: Final = 500_000  # values in all lists together, in use or not: every revision keeps them
MAX_USES: Final = 1_000_000  # values, those of a list as often as conditions name it
_MOST: Final[dict[str, int]] = {ListKind.EXPRESSIONS: MAX_EXPRESSIONS}


def check_lists(snapshot: Snapshot) -> None:
    """InvalidError or ConflictError when rules and lists do not go together."""
    twice = [name for name, count in Counter(each.name for each in snapshot.lists).items() if count > 1]
    if twice:
        raise ConflictError("list_exists", f"there is a list {twice[0]!r} already")
    _most(len(snapshot.lists), MAX_LISTS, "lists")
    counts = {each.name: _count(each) for each in snapshot.lists}
    _most(sum(counts.values()), MAX_LISTED, "values in lists")
    lists = {each.name: each for each in snapshot.lists}
    own: Counter[str] = Counter()
    uses = 0
    for rule in snapshot.rules:
        for criterion in criteria_of(rule):
            reachable = 0
            for name in named_lists(criterion):
                _check_use(rule, name, lists.get(name), criterion)
                reachable += counts[name]
            for kind, number in _own_values(criterion):
                reachable += number
                own[kind] += number * rule.enabled
            uses += reachable * rule.enabled
            if isinstance(criterion, KeywordCondition) and criterion.at_least > max(reachable, 1):
                raise InvalidError(
                    "invalid_condition",
                    f"rule {rule.name!r} asks for {criterion.at_least} of {reachable} phrases and expressions",
                )
    for each in lists_in_use(snapshot):
        own[each.kind] += counts[each.name]
    for kind, number in own.items():
        _most(number, _MOST.get(kind, MAX_PHRASES), f"{kind} in rules and their lists")
    _most(uses, MAX_USES, "values, counted as often as conditions name them,")


def criteria_of(rule: RuleObject) -> Iterator[Criterion]:
    """All that a rule asks about."""
    yield from criteria(rule.condition)
    if rule.unless is not None:
        yield from criteria(rule.unless)


def named_lists(criterion: Criterion) -> tuple[str, ...]:
    """The lists that it names."""
    match criterion:
        case (
            SenderCondition(lists=lists)
            | AttachmentCondition(lists=lists)
            | KeywordCondition(lists=lists)
            | HeaderCondition(lists=lists)
            | ClientCondition(lists=lists)
            | UserCondition(lists=lists)
        ):
            return lists
        case _:
            return ()


def lists_in_use(snapshot: Snapshot) -> list[ListObject]:
    """Those that an enabled rule names, in their order."""
    used = {name for rule in snapshot.rules if rule.enabled for each in criteria_of(rule) for name in named_lists(each)}
    return [each for each in snapshot.lists if each.name in used]


def _check_use(rule: RuleObject, name: str, found: ListObject | None, criterion: Criterion) -> None:
    if found is None:
        raise InvalidError("unknown_list", f"rule {rule.name!r} names the list {name!r}, which does not exist")
    taken = _kinds(criterion)
    if found.kind not in taken:
        raise InvalidError(
            "wrong_list_kind", f"rule {rule.name!r}: list {name!r} holds {found.kind}, the condition takes {' or '.join(taken)}"
        )


def _kinds(criterion: Criterion) -> tuple[ListKind, ...]:
    """Which lists it takes."""
    match criterion:
        case SenderCondition():
            return (ListKind.SENDERS,)
        case ClientCondition():
            return (ListKind.NETWORKS,)
        case UserCondition():
            return (ListKind.USERS,)
        case AttachmentCondition(match=AttachmentMatch.EXTENSION):
            return (ListKind.EXTENSIONS,)
        case AttachmentCondition(match=AttachmentMatch.NAME):
            return (ListKind.FILE_NAMES,)
        case HeaderCondition(match=HeaderMatch.REGEX):
            return (ListKind.EXPRESSIONS,)
        case HeaderCondition():
            return (ListKind.PHRASES,)
        case KeywordCondition():
            return (ListKind.PHRASES, ListKind.EXPRESSIONS)
        case _:
            return ()


def _own_values(criterion: Criterion) -> Iterator[tuple[str, int]]:
    """How many values it has itself."""
    match criterion:
        case KeywordCondition(phrases=phrases, expressions=expressions):
            yield ListKind.PHRASES, len(phrases)
            yield ListKind.EXPRESSIONS, len(expressions)
        case SenderCondition(patterns=values) | AttachmentCondition(values=values) | HeaderCondition(values=values):
            yield (_kinds(criterion) or (ListKind.PHRASES,))[0], len(values)
        case RecipientCondition(patterns=values):
            yield "recipient patterns", len(values)
        case ClientCondition(networks=values) | UserCondition(names=values):
            yield _kinds(criterion)[0], len(values)
        case _:
            return


def _count(each: ListObject) -> int:
    return each.text.count("\n") + 1 if each.text else 0


def _most(number: int, most: int, what: str) -> None:
    if number > most:
        raise InvalidError("too_many", f"{number} {what}: at most {most} are possible")
