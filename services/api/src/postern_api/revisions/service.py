"""What a rollback cannot bring back. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from postern_api.policy.objects import Snapshot


def warnings(snapshot: Snapshot, route_users: Mapping[str, str], password_hashes: Mapping[str, str]) -> list[str]:
    """One sentence for each password that is missing."""
    routes = [
        f"route {route.name}: no password is stored for user {route.user!r}; set it, or its mail waits"
        for route in snapshot.routes
        if route.user and route_users.get(route.name) != route.user
    ]
    users = [
        f"user {user.name}: no password is stored; he cannot log in until one is set"
        for user in snapshot.users
        if user.name.casefold() not in password_hashes
    ]
    return routes + users
