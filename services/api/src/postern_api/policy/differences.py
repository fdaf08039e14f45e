"""What differs between two snapshots, object by object: for `diff`, and for the audit log. Pure; snapshots hold no secrets."""

from __future__ import annotations

from typing import Any

import msgspec

from postern_api.policy.objects import Snapshot


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One object that was added (`before` is None), removed (`after` is None) or changed."""

    object: str  # "rules/r-1a2b3c4d"
    before: Any
    after: Any


def differences(old: Snapshot, new: Snapshot) -> list[Difference]:
    """Every difference, in a stable order."""
    before, after = _named(old), _named(new)
    names = dict.fromkeys([*before, *after])
    return [
        Difference(object=name, before=before.get(name), after=after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _named(snapshot: Snapshot) -> dict[str, Any]:
    objects: dict[str, Any] = {
        "settings": snapshot.settings,
        "listeners/anon/limits": snapshot.anon,
        "listeners/auth/limits": snapshot.auth,
        "schedule": snapshot.schedule,
        "alerts/channels": snapshot.alerts.channels,
        "rules/order": [rule.id for rule in snapshot.rules],
    }
    for gate, listener in (("anon", snapshot.anon_listener), ("auth", snapshot.auth_listener)):
        objects |= {f"listeners/{gate}/{part}": value for part, value in msgspec.structs.asdict(listener).items()}
    objects |= {f"alerts/{kind}/thresholds": thresholds for kind, thresholds in snapshot.alerts.thresholds.items()}
    objects |= {f"domains/{domain.pattern}": domain for domain in snapshot.domains}
    objects |= {f"routes/{route.name}": route for route in snapshot.routes}
    objects |= {f"rules/{rule.id}": rule for rule in snapshot.rules}
    objects |= {f"users/{user.name}": user for user in snapshot.users}
    named: dict[str, Any] = msgspec.to_builtins(objects)
    return named
