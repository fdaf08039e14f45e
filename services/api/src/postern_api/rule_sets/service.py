"""Rule sets: from the payload to a canonical object, and edits of their list. Pure."""

from __future__ import annotations

import msgspec

from postern_api.errors import ConflictError, InvalidError, NotFoundError
from postern_api.policy.objects import RuleSetObject, Snapshot
from postern_api.rule_sets.schemas import RuleSetBody
from postern_api.rules.envelope_conditions import checked_gates, checked_recipients, checked_schedule


def rule_set_from(body: RuleSetBody) -> RuleSetObject:
    """InvalidError for a pattern or a time zone that is none."""
    if body.name != body.name.strip():
        raise InvalidError("invalid_name", "the name of a rule set neither begins nor ends with a blank")
    return RuleSetObject(
        name=body.name,
        gates=checked_gates(body.gates),
        recipients=checked_recipients(body.recipients),
        schedule=None if body.schedule is None else checked_schedule(body.schedule),
        enabled=body.mode != "off",
        monitor=body.mode == "monitor",
        note=body.note,
    )


def find(snapshot: Snapshot, name: str) -> RuleSetObject:
    for each in snapshot.rule_sets:
        if each.name == name:
            return each
    raise NotFoundError("rule set", name)


def add(snapshot: Snapshot, made: RuleSetObject) -> Snapshot:
    return msgspec.structs.replace(snapshot, rule_sets=(*snapshot.rule_sets, made))


def replace(snapshot: Snapshot, changed: RuleSetObject) -> Snapshot:
    find(snapshot, changed.name)
    kept = tuple(changed if each.name == changed.name else each for each in snapshot.rule_sets)
    return msgspec.structs.replace(snapshot, rule_sets=kept)


def remove(snapshot: Snapshot, name: str) -> Snapshot:
    """ConflictError while a rule is in it: without its set that rule would be for all mail."""
    gone = find(snapshot, name)
    inside = [rule.name for rule in snapshot.rules if rule.rule_set == name]
    if inside:
        raise ConflictError(
            "rule_set_in_use", f"{len(inside)} rules are in rule set {name!r}, as {inside[0]!r}: move or delete them first"
        )
    return msgspec.structs.replace(snapshot, rule_sets=tuple(each for each in snapshot.rule_sets if each is not gone))
