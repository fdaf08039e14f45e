"""The recipient lists of domains: what an administrator writes, in canonical form, and edits of a snapshot. Pure; long lists take a second."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from postern_api.domains.service import find
from postern_api.errors import InvalidError
from postern_api.policy.addresses import checked_address
from postern_api.policy.checks import MAX_RECIPIENTS
from postern_api.policy.objects import Snapshot
from postern_core.policy import RecipientList


def list_of(snapshot: Snapshot, pattern: str) -> RecipientList:
    """The list of a domain, an empty one where it has none. NotFoundError without the domain."""
    find(snapshot, pattern)
    return next((each for each in snapshot.recipient_lists if each.domain == pattern), RecipientList(domain=pattern))


def checked_list(pattern: str, addresses: Iterable[str], *, case_sensitive: bool) -> RecipientList:
    """Sorted, each once. InvalidError for what is no address of the domain."""
    found = checked_recipients(pattern, addresses, case_sensitive=case_sensitive)
    return RecipientList(domain=pattern, addresses=tuple(sorted(found)), case_sensitive=case_sensitive)


def checked_recipients(pattern: str, addresses: Iterable[str], *, case_sensitive: bool) -> set[str]:
    found = set()
    for number, text in enumerate(addresses, 1):
        if number > MAX_RECIPIENTS:
            raise InvalidError("too_many", f"at most {MAX_RECIPIENTS} recipients in lists are possible")
        address = checked_address(text)
        domain = address.rpartition("@")[2]
        if not (domain.endswith(pattern[1:]) if pattern.startswith("*.") else domain == pattern):
            raise InvalidError("invalid_address", f"{text!r} is not in {pattern}")
        found.add(address if case_sensitive else address.casefold())
    return found


def with_list(snapshot: Snapshot, listed: RecipientList) -> Snapshot:
    """`snapshot` with this list in place of the one that its domain has. An empty one is none."""
    find(snapshot, listed.domain)
    others = tuple(each for each in snapshot.recipient_lists if each.domain != listed.domain)
    if not listed.addresses and not listed.case_sensitive:
        return msgspec.structs.replace(snapshot, recipient_lists=others)
    lists = sorted((*others, listed), key=lambda each: each.domain)
    return msgspec.structs.replace(snapshot, recipient_lists=tuple(lists))


def with_changes(snapshot: Snapshot, pattern: str, add: Iterable[str], remove: Iterable[str]) -> Snapshot:
    """`snapshot` with addresses more and less in a domain's list."""
    now = list_of(snapshot, pattern)
    added = checked_recipients(pattern, add, case_sensitive=now.case_sensitive)
    removed = checked_recipients(pattern, remove, case_sensitive=now.case_sensitive)
    if both := added & removed:
        raise InvalidError("invalid_address", f"{min(both)!r} is to be added and removed")
    addresses = tuple(sorted({*now.addresses, *added} - removed))
    return with_list(snapshot, msgspec.structs.replace(now, addresses=addresses))
