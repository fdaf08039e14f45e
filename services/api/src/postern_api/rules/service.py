"""Rules: from the payload to a canonical object, and edits of their list. Pure."""

from __future__ import annotations

import re
import secrets

import msgspec

from postern_api.errors import ConflictError, InvalidError, NotFoundError
from postern_api.policy.addresses import checked_address
from postern_api.policy.objects import RuleObject, Snapshot
from postern_api.rules.changes import checked_changes
from postern_api.rules.conditions import checked_condition
from postern_api.rules.schemas import RuleBody
from postern_core.verdict import Action

_ID = re.compile(r"[a-z0-9-]{1,64}")


def new_rule_id() -> str:
    return f"r-{secrets.token_hex(4)}"


def checked_rule_id(rule_id: str) -> str:
    """An id that a path of the API can name: `/rules/order` is taken. InvalidError otherwise."""
    if not _ID.fullmatch(rule_id) or rule_id == "order":
        raise InvalidError("invalid_rule_id", f"{rule_id!r} cannot name a rule: use 1 to 64 of a-z, 0-9 and '-', and not 'order'")
    return rule_id


def rule_from(body: RuleBody, rule_id: str) -> RuleObject:
    """InvalidError for a condition that could never match, an action without its address, or changes that it cannot make."""
    if body.action is Action.FORWARD:
        if not body.forward_to:
            raise InvalidError("forward_to_missing", "action forward needs the address forward_to")
        forward_to = checked_address(body.forward_to)
    elif body.forward_to:
        raise InvalidError("forward_to_unused", f"action {body.action} takes no forward_to")
    else:
        forward_to = ""
    return RuleObject(
        id=rule_id,
        name=body.name,
        enabled=body.mode != "off",
        monitor=body.mode == "monitor",
        condition=checked_condition(body.condition),
        unless=None if body.unless is None else checked_condition(body.unless),
        action=body.action,
        forward_to=forward_to,
        rule_set=body.rule_set.strip(),
        changes=checked_changes(body.changes, body.action),
    )


def find(snapshot: Snapshot, rule_id: str) -> RuleObject:
    for rule in snapshot.rules:
        if rule.id == rule_id:
            return rule
    raise NotFoundError("rule", rule_id)


def add(snapshot: Snapshot, rule: RuleObject) -> Snapshot:
    """A new rule decides last."""
    return msgspec.structs.replace(snapshot, rules=(*snapshot.rules, rule))


def replace(snapshot: Snapshot, rule: RuleObject) -> Snapshot:
    find(snapshot, rule.id)
    return msgspec.structs.replace(snapshot, rules=tuple(rule if each.id == rule.id else each for each in snapshot.rules))


def remove(snapshot: Snapshot, rule_id: str) -> Snapshot:
    gone = find(snapshot, rule_id)
    return msgspec.structs.replace(snapshot, rules=tuple(each for each in snapshot.rules if each is not gone))


def reorder(snapshot: Snapshot, ids: list[str]) -> Snapshot:
    """ConflictError unless `ids` are those of all rules, each once: a rule must not be lost by a list made before it was added."""
    by_id = {rule.id: rule for rule in snapshot.rules}
    if len(ids) != len(by_id) or set(ids) != by_id.keys():
        raise ConflictError("rules_differ", "ids must name every rule exactly once")
    return msgspec.structs.replace(snapshot, rules=tuple(by_id[rule_id] for rule_id in ids))
