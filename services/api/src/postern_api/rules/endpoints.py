"""/rules"""

from __future__ import annotations

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.errors import declared, declared_change
from postern_api.rules import service
from postern_api.rules.schemas import RuleBody, RuleOrder, RuleView

router = guarded_router("/rules", "rules")


@router.get("", responses=declared())
async def list_rules(policy: CurrentPolicy) -> list[RuleView]:
    """All rules, in the order in which they decide."""
    return [RuleView.of(rule) for rule in policy.rules]


@router.post("", status_code=201, responses=declared_change())
async def add_rule(body: RuleBody, change: PolicyChange) -> RuleView:
    """Add a rule behind the others."""
    rule = service.rule_from(body, service.new_rule_id())
    await change.apply("rule.added", f"rules/{rule.id}", lambda snapshot: service.add(snapshot, rule))
    return RuleView.of(rule)


@router.put("/order", responses=declared_change())
async def order_rules(body: RuleOrder, change: PolicyChange) -> list[RuleView]:
    """Put the rules in another order."""
    applied = await change.apply("rules.ordered", "rules/order", lambda snapshot: service.reorder(snapshot, body.ids))
    return [RuleView.of(rule) for rule in applied.snapshot.rules]


@router.get("/{rule_id}", responses=declared(404))
async def get_rule(rule_id: str, policy: CurrentPolicy) -> RuleView:
    """One rule."""
    return RuleView.of(service.find(policy, rule_id))


@router.put("/{rule_id}", responses=declared_change(404))
async def replace_rule(rule_id: str, body: RuleBody, change: PolicyChange) -> RuleView:
    """Change a rule; it keeps its place."""
    rule = service.rule_from(body, rule_id)
    await change.apply("rule.changed", f"rules/{rule_id}", lambda snapshot: service.replace(snapshot, rule))
    return RuleView.of(rule)


@router.delete("/{rule_id}", status_code=204, responses=declared_change(404))
async def delete_rule(rule_id: str, change: PolicyChange) -> None:
    """Remove a rule. What it has held stays in quarantine."""
    await change.apply("rule.deleted", f"rules/{rule_id}", lambda snapshot: service.remove(snapshot, rule_id))
