"""Edits of the list of SMTP users: snapshot in, snapshot out. Names are caseless. Pure."""

from __future__ import annotations

import msgspec

from postern_api.errors import NotFoundError
from postern_api.policy.objects import Snapshot, UserObject


def find(snapshot: Snapshot, name: str) -> UserObject:
    folded = name.casefold()
    for user in snapshot.users:
        if user.name.casefold() == folded:
            return user
    raise NotFoundError("user", name)


def add(snapshot: Snapshot, user: UserObject) -> Snapshot:
    return msgspec.structs.replace(snapshot, users=(*snapshot.users, user))


def replace(snapshot: Snapshot, user: UserObject) -> Snapshot:
    """`user` in the place of the one of the same name."""
    old = find(snapshot, user.name)
    return msgspec.structs.replace(snapshot, users=tuple(user if each is old else each for each in snapshot.users))


def remove(snapshot: Snapshot, name: str) -> Snapshot:
    gone = find(snapshot, name)
    return msgspec.structs.replace(snapshot, users=tuple(each for each in snapshot.users if each is not gone))
