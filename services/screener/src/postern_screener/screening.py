"""Findings → verdict: the first rule, in the administrator's order, that matches anywhere in the message decides (OLD-PRODUCT 2.31).

Pure: the same envelope, bytes and rules always give the same verdict. Rules judge what could be read; when none matches and the message
has a defect it is held (2.44: a filter that cannot read a message does not let it pass). A rule in mode monitor is told of and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

import msgspec

from postern_core.envelope import Envelope
from postern_core.policy import Rule, RuleMode
from postern_core.verdict import Action, Decision, Finding, HoldReason, Verdict
from postern_screener.checks.hit import Hit, at_start
from postern_screener.defects import Defect
from postern_screener.inspection import Inspection
from postern_screener.ruleset import CompiledRule, Ruleset

ORIGINAL_RECIPIENTS_FIELD: Final = "X-Postern-Original-Recipients"
FORWARDED_BY_FIELD: Final = "X-Postern-Forwarded-By"
EXCERPT_CHARACTERS: Final = 72
SUBJECT_CHARACTERS: Final = 200
MAX_FINDINGS: Final = 20
MAX_REASONS: Final = 5  # of one rule: places of the criteria that made it match
_DECISION_OF: Final = {
    Action.DELETE: Decision.DELETE,
    Action.HOLD: Decision.HOLD,
    Action.FORWARD: Decision.FORWARD,
    Action.ALLOW: Decision.PASS,
}


class Screened(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, and what the lists of held mail show beside it."""

    verdict: Verdict
    subject: str = ""


def screen(envelope: Envelope, body: bytes, ruleset: Ruleset) -> Screened:
    """Screen one message under one revision. Never raises for anything in the message."""
    inspection = Inspection(envelope, body, ruleset)
    matched = [rule for rule in ruleset.candidates(inspection.found) if rule.matches(inspection.holds)]
    deciding = next((rule for rule in matched if rule.rule.mode is RuleMode.ON), None)
    findings = _findings(inspection, matched, deciding)
    if deciding is not None:
        verdict = _by_rule(inspection, deciding.rule, findings)
    elif inspection.defects:
        verdict = _malformed(ruleset, inspection.defects[0], findings)
    else:
        verdict = _unruled(envelope, ruleset, findings)
    message = inspection.message
    return Screened(verdict=verdict, subject="" if message is None else one_line(message.field("subject"), SUBJECT_CHARACTERS))


def _findings(inspection: Inspection, matched: Sequence[CompiledRule], deciding: CompiledRule | None) -> tuple[Finding, ...]:
    """Of the rule that decided first, then of the others, in their order."""
    found: list[Finding] = []
    others = [rule for rule in matched if rule is not deciding]
    for rule in others if deciding is None else [deciding, *others]:
        reasons = islice(dict.fromkeys(rule.condition.reasons(inspection.holds)), MAX_REASONS)
        hits = [hit for hit in map(inspection.hit, reasons) if hit is not None]
        found += [_finding(hit, rule.rule) for hit in hits] or [_finding(Hit(-1, "envelope", at_start("")), rule.rule)]
        if len(found) >= MAX_FINDINGS:
            break
    return tuple(found[:MAX_FINDINGS])


def _by_rule(inspection: Inspection, rule: Rule, findings: tuple[Finding, ...]) -> Verdict:
    decision, detail = _DECISION_OF[rule.action], f"rule {rule.name}"
    if decision is Decision.FORWARD and _is_loop(inspection, rule):
        decision, detail = Decision.HOLD, f"held instead of forwarded: it was forwarded to {rule.forward_to} before"
    return Verdict(
        revision=inspection.ruleset.revision,
        decision=decision,
        findings=findings,
        hold_reason=HoldReason.RULE if decision is Decision.HOLD else None,
        forward_to=rule.forward_to if decision is Decision.FORWARD else "",
        detail=detail,
    )


def _finding(hit: Hit, rule: Rule) -> Finding:
    offset, excerpt = hit.locate()
    return Finding(
        rule_id=rule.id,
        rule_name=rule.name,
        part=hit.part,
        offset=offset,
        excerpt=one_line(excerpt, EXCERPT_CHARACTERS),
        monitored=rule.mode is RuleMode.MONITOR,
    )


def _unruled(envelope: Envelope, ruleset: Ruleset, findings: tuple[Finding, ...]) -> Verdict:
    """What no rule speaks of passes, unless the gate asks for it to be held."""
    if not envelope.hold:
        return Verdict(revision=ruleset.revision, decision=Decision.PASS, findings=findings)
    return Verdict(
        revision=ruleset.revision,
        decision=Decision.HOLD,
        findings=findings,
        hold_reason=HoldReason.AUTHENTICATION,
        detail=one_line(envelope.hold, 500),
    )


def _malformed(ruleset: Ruleset, defect: Defect, findings: tuple[Finding, ...]) -> Verdict:
    return Verdict(
        revision=ruleset.revision,
        decision=Decision.HOLD,
        findings=findings,
        hold_reason=HoldReason.MALFORMED,
        detail=one_line(f"part {defect.part}: {defect.reason}", 500),
    )


def _is_loop(inspection: Inspection, rule: Rule) -> bool:
    """Whether this rule, or any rule to this address, forwarded the message before."""
    message = inspection.message
    if message is None:
        return FORWARDED_BY_FIELD.lower().encode() in inspection.body.lower()
    if rule.id in (value.strip() for value in message.fields.get(FORWARDED_BY_FIELD.lower(), ())):
        return True
    wanted = rule.forward_to.casefold()
    return any(
        wanted == address.strip().casefold()
        for value in message.fields.get(ORIGINAL_RECIPIENTS_FIELD.lower(), ())
        for address in value.split(",")
    )


def one_line(text: str, limit: int) -> str:
    """`text` without controls and direction marks, white space as single blanks, cut at `limit` characters."""
    line = " ".join(text[: limit * 4].split())
    return (line if line.isprintable() else "".join(character for character in line if character.isprintable()))[:limit]
