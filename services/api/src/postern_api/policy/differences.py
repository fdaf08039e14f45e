"""What differs between two snapshots, object by object: for `diff`, and for the audit log. Pure; snapshots hold no secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from postern_api.policy.objects import ListObject, Snapshot
from postern_core.policy import RecipientList, YaraFile
from postern_core.verdict import Unscannable

_SHOWN: Final = 100


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One object that was added (`before` is None), removed (`after` is None) or changed."""

    object: str  # "rules/r-1a2b3c4d"
    before: Any
    after: Any


def differences(old: Snapshot, new: Snapshot) -> list[Difference]:
    """Every difference, in a stable order."""
    before, after = _named(old), _named(new)
    names = dict.fromkeys([*before, *after])
    differing = [
        Difference(object=name, before=before.get(name), after=after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]
    return [*differing, *_recipient_lists(old, new), *_named_lists(old, new)]


def _recipient_lists(old: Snapshot, new: Snapshot) -> Iterator[Difference]:
    """The recipient lists, which may be long: how many addresses, and the first of those that went or came."""
    before = {each.domain: each for each in old.recipient_lists}
    after = {each.domain: each for each in new.recipient_lists}
    for domain in dict.fromkeys([*before, *after]):
        was, becomes = before.get(domain), after.get(domain)
        if was != becomes:
            yield Difference(
                object=f"domains/{domain}/recipients", before=_told("removed", was, becomes), after=_told("added", becomes, was)
            )


def _told(what: str, own: RecipientList | None, other: RecipientList | None) -> dict[str, Any] | None:
    if own is None:
        return None
    only_own = sorted(set(own.addresses).difference(other.addresses if other is not None else ()))
    return {"addresses": len(own.addresses), "case_sensitive": own.case_sensitive, what: only_own[:_SHOWN]}


def _yara_told(file: YaraFile) -> dict[str, Any]:
    """A file may be long: which one it is."""
    source = file.source.encode()
    return {"bytes": len(source), "sha256": hashlib.sha256(source).hexdigest()}


def _named_lists(old: Snapshot, new: Snapshot) -> Iterator[Difference]:
    """In the same way."""
    before, after = {each.name: each for each in old.lists}, {each.name: each for each in new.lists}
    for name in dict.fromkeys([*before, *after]):
        was, becomes = before.get(name), after.get(name)
        if was != becomes:
            yield Difference(
                object=f"lists/{name}", before=_list_told("removed", was, becomes), after=_list_told("added", becomes, was)
            )


def _list_told(what: str, own: ListObject | None, other: ListObject | None) -> dict[str, Any] | None:
    if own is None:
        return None
    only_own = sorted(set(own.values).difference(other.values if other is not None else ()))
    return {"kind": own.kind, "description": own.description, "values": len(own.values), what: only_own[:_SHOWN]}


def _named(snapshot: Snapshot) -> dict[str, Any]:
    objects: dict[str, Any] = {
        "settings": snapshot.settings,
        "listeners/anon/limits": snapshot.anon,
        "listeners/auth/limits": snapshot.auth,
        "schedule": snapshot.schedule,
        "screening/unscannable": {kind.value: snapshot.unscannable.answer(kind) for kind in Unscannable},
        "alerts/channels": snapshot.alerts.channels,
        "engines/clamd": snapshot.engines.clamd,
        "engines/rspamd": snapshot.engines.rspamd,
        "engines/yara": msgspec.structs.replace(snapshot.engines.yara, files=()),
        "engines/waiting": {"hold_after_s": snapshot.engines.hold_after_s},
        "rules/order": [rule.id for rule in snapshot.rules],
    }
    for gate, listener in (("anon", snapshot.anon_listener), ("auth", snapshot.auth_listener)):
        objects |= {f"listeners/{gate}/{part}": value for part, value in msgspec.structs.asdict(listener).items()}
    objects |= {f"alerts/{kind}/thresholds": thresholds for kind, thresholds in snapshot.alerts.thresholds.items()}
    objects |= {f"alerts/{kind}/action": action for kind, action in snapshot.alerts.actions.items()}
    objects |= {f"domains/{domain.pattern}": domain for domain in snapshot.domains}
    objects |= {f"routes/{route.name}": route for route in snapshot.routes}
    objects |= {f"rules/{rule.id}": rule for rule in snapshot.rules}
    objects |= {f"rule-sets/{each.name}": each for each in snapshot.rule_sets}
    objects |= {f"yara/{file.name}": _yara_told(file) for file in snapshot.engines.yara.files}
    objects |= {f"users/{user.name}": user for user in snapshot.users}
    named: dict[str, Any] = msgspec.to_builtins(objects)
    return named
