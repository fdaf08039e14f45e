"""Edits of the routes: snapshot in, snapshot out, and the credentials that change with them.

There is always one default route once there is any: the first is it by itself, another takes over by being made the default.
"""

from __future__ import annotations

import msgspec

from postern_api.errors import ConflictError, InvalidError, NotFoundError
from postern_api.policy.credentials import CredentialChange, RoutePassword, RoutePasswordGone
from postern_api.policy.objects import RouteObject, Snapshot
from postern_core.credentials import RouteSecret


def find(snapshot: Snapshot, name: str) -> RouteObject:
    for route in snapshot.routes:
        if route.name == name:
            return route
    raise NotFoundError("route", name)


def add(snapshot: Snapshot, route: RouteObject) -> Snapshot:
    if not snapshot.routes:
        route = msgspec.structs.replace(route, default=True)
    return msgspec.structs.replace(snapshot, routes=(*_yielding(snapshot, route), route))


def replace(snapshot: Snapshot, route: RouteObject) -> Snapshot:
    find(snapshot, route.name)
    routes = tuple(route if each.name == route.name else each for each in _yielding(snapshot, route))
    return msgspec.structs.replace(snapshot, routes=routes)


def remove(snapshot: Snapshot, name: str) -> Snapshot:
    """ConflictError while domains take this route. Mail that waits for it already stays in the queue until it is retried elsewhere,
    expires or is deleted."""
    gone = find(snapshot, name)
    users = [domain.pattern for domain in snapshot.domains if domain.route == name]
    if users:
        raise ConflictError(
            "route_in_use", f"{len(users)} domains take route {name!r}: {', '.join(users[:5])}", domains=users[:100]
        )
    if gone.default:
        raise ConflictError("default_route_required", f"{name!r} is the default route: make another one the default first")
    return msgspec.structs.replace(snapshot, routes=tuple(each for each in snapshot.routes if each is not gone))


def credential_changes(route: RouteObject, password: str | None, secret_user: str | None) -> list[CredentialChange]:
    """What becomes of the stored password, of user `secret_user`. InvalidError when the user is new and there is no password for it."""
    if not route.user:
        return [RoutePasswordGone(route.name)] if secret_user is not None else []
    if password:
        return [RoutePassword(route.name, RouteSecret(user=route.user, password=password))]
    if secret_user != route.user:
        raise InvalidError("password_missing", f"no password is stored for user {route.user!r} of route {route.name!r}: send one")
    return []


def _yielding(snapshot: Snapshot, route: RouteObject) -> tuple[RouteObject, ...]:
    """All routes, none of them the default when `route` is to be it."""
    if not route.default:
        return snapshot.routes
    return tuple(msgspec.structs.replace(each, default=False) for each in snapshot.routes)
