"""Edits of the relay domains: snapshot in, snapshot out. Pure; what must hold between objects is checked afterwards."""

from __future__ import annotations

import msgspec

from postern_api.errors import NotFoundError
from postern_api.policy.objects import Snapshot
from postern_core.policy import RelayDomain


def find(snapshot: Snapshot, pattern: str) -> RelayDomain:
    for domain in snapshot.domains:
        if domain.pattern == pattern:
            return domain
    raise NotFoundError("domain", pattern)


def add(snapshot: Snapshot, domain: RelayDomain) -> Snapshot:
    return msgspec.structs.replace(snapshot, domains=(*snapshot.domains, domain))


def replace(snapshot: Snapshot, domain: RelayDomain) -> Snapshot:
    find(snapshot, domain.pattern)
    domains = tuple(domain if each.pattern == domain.pattern else each for each in snapshot.domains)
    return msgspec.structs.replace(snapshot, domains=domains)


def remove(snapshot: Snapshot, pattern: str) -> Snapshot:
    gone = find(snapshot, pattern)
    return msgspec.structs.replace(
        snapshot,
        domains=tuple(each for each in snapshot.domains if each is not gone),
        recipient_lists=tuple(each for each in snapshot.recipient_lists if each.domain != pattern),
    )
