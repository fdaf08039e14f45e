"""The changes of the rules that matched, up to the one that decided, made part of the outcome; and fields removed that are Postern's to write.

A message of which a part cannot be cut out safely is held instead: it must go on neither with it nor with other bytes cut.
"""

from __future__ import annotations

import msgspec

from postern_core.policy.matching import CompiledRule
from postern_core.verdict import Decision, HoldReason, Verdict
from postern_screener.changes.edits import Edit
from postern_screener.changes.plan import Plan, Wanted, forged, plan
from postern_screener.deciding import Walk
from postern_screener.inspection import Inspection, Share


class Changer:
    """Plans the changes of one message. Shares of recipients for whom the same rules ask for them have one plan."""

    def __init__(self) -> None:
        self._plans: dict[tuple[bool, tuple[Wanted, ...]], Plan] = {}

    def with_changes(self, share: Share, walk: Walk, verdict: Verdict) -> tuple[Verdict, tuple[Edit, ...]]:
        """`verdict` with the changes that the rules ask for that matched, and the edits that make them. Costs nothing where none asks for any."""
        matched, deciding = walk.matched, walk.deciding
        if walk.blocked is not None:
            return verdict, ()  # nobody knows which rules are reached
        reached = matched if deciding is None else matched[: matched.index(deciding) + 1]
        wanted = tuple(_wanted(share, each) for each in reached if each.rule.changes)
        goes_on = verdict.decision in (Decision.PASS, Decision.FORWARD)
        if not wanted and not (goes_on and forged(share.inspection.message)):
            return verdict, ()
        found = self._plan(share.inspection, wanted, goes_on=goes_on)
        verdict = msgspec.structs.replace(verdict, changes=(*verdict.changes, *found.made))
        if found.uncertain:
            detail = f"held since it could not be changed safely: {found.uncertain}"[:500]
            verdict = msgspec.structs.replace(
                verdict, decision=Decision.HOLD, hold_reason=HoldReason.RULE, forward_to="", detail=detail
            )
        return verdict, found.edits

    def _plan(self, inspection: Inspection, wanted: tuple[Wanted, ...], *, goes_on: bool) -> Plan:
        earlier = self._plans.get((goes_on, wanted))
        if earlier is not None:
            return earlier
        policy = inspection.ruleset.policy
        postmaster = policy.postmaster or (f"postmaster@{policy.hostname}" if policy.hostname else "")
        found = plan(inspection.envelope, inspection.body, inspection.tree, wanted, goes_on=goes_on, postmaster=postmaster)
        return self._plans.setdefault((goes_on, wanted), found)


def _wanted(share: Share, rule: CompiledRule) -> Wanted:
    reasons = dict.fromkeys(rule.condition.reasons(share.holds_so_far))
    return Wanted(rule.rule, tuple(dict.fromkeys(part for reason in reasons for part in share.inspection.places(reason))))
