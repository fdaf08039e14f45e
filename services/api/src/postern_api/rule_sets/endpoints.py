"""/rule-sets"""

from __future__ import annotations

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.errors import InvalidError, declared, declared_change
from postern_api.fields import Identity
from postern_api.rule_sets import service
from postern_api.rule_sets.schemas import RuleSetBody, RuleSetView

router = guarded_router("/rule-sets", "rule sets")


@router.get("", responses=declared())
async def list_rule_sets(policy: CurrentPolicy) -> list[RuleSetView]:
    """All rule sets."""
    return [RuleSetView.of(each, policy) for each in policy.rule_sets]


@router.post("", status_code=201, responses=declared_change())
async def add_rule_set(body: RuleSetBody, change: PolicyChange) -> RuleSetView:
    """Add a rule set. Rules name it in their `rule_set`."""
    made = service.rule_set_from(body)
    applied = await change.apply("rule_set.added", f"rule-sets/{made.name}", lambda snapshot: service.add(snapshot, made))
    return RuleSetView.of(made, applied.snapshot)


@router.get("/{name}", responses=declared(404))
async def get_rule_set(name: Identity, policy: CurrentPolicy) -> RuleSetView:
    """One rule set."""
    return RuleSetView.of(service.find(policy, name), policy)


@router.put("/{name}", responses=declared_change(404))
async def replace_rule_set(name: Identity, body: RuleSetBody, change: PolicyChange) -> RuleSetView:
    """Change a rule set, and with it the mail that the rules in it are for."""
    if body.name != name:
        raise InvalidError("name_differs", "the name in the body is not the one in the address; a rule set cannot be renamed")
    changed = service.rule_set_from(body)
    applied = await change.apply("rule_set.changed", f"rule-sets/{name}", lambda snapshot: service.replace(snapshot, changed))
    return RuleSetView.of(changed, applied.snapshot)


@router.delete("/{name}", status_code=204, responses=declared_change(404))
async def delete_rule_set(name: Identity, change: PolicyChange) -> None:
    """Remove a rule set that no rule is in."""
    await change.apply("rule_set.deleted", f"rule-sets/{name}", lambda snapshot: service.remove(snapshot, name))
