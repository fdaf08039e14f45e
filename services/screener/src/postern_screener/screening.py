"""Findings → verdict: the first rule, in the administrator's order, that matches anywhere in the message decides (OLD-PRODUCT 2.31).

Pure: the same envelope, bytes and rules always give the same verdict. Rules judge what could be read; when none matches and something could not
be read, the policy for unscannable mail decides (2.44: a filter that cannot read a message does not let it pass, unless it is told to). A rule in
mode monitor is told of and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

import msgspec

from postern_core.envelope import Envelope
from postern_core.policy import OnVirus, Rule, RuleMode
from postern_core.policy.matching import CompiledRule
from postern_core.verdict import MOST_CRITERIA, Action, Decision, Engine, Finding, HoldReason, Verdict
from postern_screener.changes.edits import Edit
from postern_screener.changing import Changer
from postern_screener.checks.hit import Hit, at_start
from postern_screener.deciding import Blocked, Walk, decide
from postern_screener.engines.answers import NOBODY_ASKED, Answers, told
from postern_screener.inspection import Inspection, Share
from postern_screener.ruleset import Ruleset
from postern_screener.unscannable import by_policy, detail_of_ours, header_fields, obstacles_of, one_line, unquoted

ORIGINAL_RECIPIENTS_FIELD: Final = "X-Postern-Original-Recipients"
FORWARDED_BY_FIELD: Final = "X-Postern-Forwarded-By"
EXCERPT_CHARACTERS: Final = 72
CHAIN_CHARACTERS: Final = 200  # of each name in a chain
SUBJECT_CHARACTERS: Final = 200
MAX_FINDINGS: Final = 20
MAX_REASONS: Final = 5  # of one rule: places of the criteria that made it match
_DECISION_OF: Final = {
    Action.DELETE: Decision.DELETE,
    Action.HOLD: Decision.HOLD,
    Action.FORWARD: Decision.FORWARD,
    Action.ALLOW: Decision.PASS,
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be done for some of the recipients."""

    recipients: tuple[int, ...]  # `Recipient.n`
    verdict: Verdict
    edits: tuple[Edit, ...] = ()  # what a message that goes on is changed by


class Screened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A verdict, and what the lists of held mail show beside it."""

    verdict: Verdict
    subject: str = ""
    edits: tuple[Edit, ...] = ()  # what it is changed by where it goes on
    outcomes: tuple[Outcome, ...] = ()  # where rules differ between recipients; `verdict` is then that of the first
    asks: tuple[Engine, ...] = ()  # daemons whose answers the verdict depends on: until they are given, it is to hold
    deferral: str = (
        ""  # why the message is to wait for an engine that failed; verdict and outcomes are for when it has waited long enough
    )


def screen(envelope: Envelope, body: bytes, ruleset: Ruleset, answers: Answers = NOBODY_ASKED) -> Screened:
    """Screen one message under one revision, with what engines said of it. Never raises for anything in the message."""
    return judged(Inspection(envelope, body, ruleset, answers))


def judged(inspection: Inspection) -> Screened:
    """What comes of a message that nobody has judged yet."""
    ruleset, candidates = inspection.ruleset, inspection.candidates
    walks = [(share, decide(share, candidates)) for share in inspection.shares()]
    subject = one_line(inspection.message.field("subject"), SUBJECT_CHARACTERS)
    if asks := tuple(dict.fromkeys([engine for _, walk in walks for engine in walk.asks])):
        verdict = _unjudged(ruleset, Blocked(f"{', '.join(asks)} not asked yet"), ())
        return Screened(verdict=verdict, subject=subject, asks=asks)
    outcomes = _outcomes(inspection, walks)
    deferrals = [walk.blocked.reason for _, walk in walks if walk.blocked is not None and walk.blocked.may_wait]
    return Screened(
        verdict=outcomes[0].verdict,
        subject=subject,
        edits=outcomes[0].edits if len(outcomes) == 1 else (),
        outcomes=outcomes if len(outcomes) > 1 else (),
        deferral=deferrals[0] if deferrals else "",
    )


def _outcomes(inspection: Inspection, walks: Sequence[tuple[Share, Walk]]) -> tuple[Outcome, ...]:
    """Those recipients together for whom the same is to be done."""
    answers = tuple([told(engine, answer) for engine, answer in inspection.answers])
    changer = Changer()
    outcomes: list[Outcome] = []
    for share, walk in walks:
        verdict, edits = changer.with_changes(share, walk, _verdict(share, walk))
        if answers:
            unscanned = walk.unscanned if verdict.decision is Decision.PASS else ()
            verdict = msgspec.structs.replace(verdict, answers=answers, unscanned=unscanned)
        outcomes.append(Outcome(recipients=tuple([recipient.n for recipient in share.recipients]), verdict=verdict, edits=edits))
    return tuple(outcomes) if len(outcomes) == 1 else _together(outcomes)


def _together(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Those that come to the same as one, with the findings of the first."""
    found: dict[tuple[str, bytes, Verdict], Outcome] = {}
    for outcome in outcomes:
        verdict = outcome.verdict
        # where all pass it does not matter which rule allowed it
        decided_by = verdict.deciding.rule_id if verdict.deciding is not None and verdict.decision is not Decision.PASS else ""
        changes = tuple(made for made in verdict.changes if not made.monitored)
        alike = msgspec.structs.replace(
            verdict, findings=(), detail="", criteria=(), criteria_cut=False, unasked=(), language=None, changes=changes
        )
        # … unless one passes with a field that says what was not screened, and the other without
        same = (decided_by, header_fields(verdict), alike)
        if (earlier := found.get(same)) is None:
            found[same] = outcome
        else:
            numbers = tuple(sorted((*earlier.recipients, *outcome.recipients)))
            found[same] = Outcome(recipients=numbers, verdict=earlier.verdict, edits=outcome.edits)
    return tuple(found.values())


def _verdict(share: Share, walk: Walk) -> Verdict:
    inspection = share.inspection
    findings = _findings(share, walk.matched, walk.deciding)
    if walk.blocked is not None:
        verdict = _unjudged(inspection.ruleset, walk.blocked, findings)
    elif walk.deciding is not None:
        verdict = _by_rule(inspection, walk.deciding.rule, findings)
    elif walk.virus:
        verdict = _infected(inspection.ruleset, walk.virus, findings)
    else:
        verdict = _unruled(inspection.envelope, inspection.ruleset, findings)
    if obstacles := obstacles_of(inspection.unscanned):
        verdict = msgspec.structs.replace(verdict, obstacles=obstacles)
        if walk.deciding is None and walk.blocked is None and not walk.virus:
            verdict = by_policy(verdict, inspection.ruleset.policy.unscannable)
    return _with_criteria(verdict, share)


def _findings(share: Share, matched: Sequence[CompiledRule], deciding: CompiledRule | None) -> tuple[Finding, ...]:
    """Of the rule that decided first, then of the others, in their order."""
    if not matched:
        return ()
    found: list[Finding] = []
    others = [rule for rule in matched if rule is not deciding]
    for rule in others if deciding is None else [deciding, *others]:
        reasons = dict.fromkeys(rule.condition.reasons(share.holds_so_far))
        hits = islice((hit for reason in reasons for hit in share.hits(reason)), MAX_REASONS)
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


def _with_criteria(verdict: Verdict, share: Share) -> Verdict:
    """The verdict with the keys of the criteria that held: by them the api tells later why each rule did not match (policy.why_not)."""
    inspection = share.inspection
    key = inspection.ruleset.numbered.key
    held = inspection.found | share.told
    unasked = [criterion for criterion in inspection.ruleset.engines if inspection.holds_so_far(criterion) is None]
    unasked += sorted(inspection.unopened)
    if not held and not unasked and inspection.language is None:
        return verdict
    keys = tuple(map(key, sorted(held)[:MOST_CRITERIA]))
    return msgspec.structs.replace(
        verdict,
        criteria=keys,
        criteria_cut=max(len(held), len(unasked)) > MOST_CRITERIA,
        unasked=tuple(map(key, unasked[:MOST_CRITERIA])),
        language=inspection.language,
    )


def _finding(hit: Hit, rule: Rule) -> Finding:
    place = hit.place()
    return Finding(
        rule_id=rule.id,
        rule_name=rule.name,
        part=hit.part,
        offset=place.offset,
        length=place.length,
        chain=tuple(one_line(name, CHAIN_CHARACTERS) for name in hit.chain),
        excerpt=one_line(place.excerpt, EXCERPT_CHARACTERS),
        monitored=rule.mode is RuleMode.MONITOR,
        continued=rule.action is Action.CONTINUE,
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


def _unjudged(ruleset: Ruleset, blocked: Blocked, findings: tuple[Finding, ...]) -> Verdict:
    return Verdict(
        revision=ruleset.revision,
        decision=Decision.HOLD,
        findings=tuple(finding for finding in findings if finding.monitored),
        hold_reason=HoldReason.ENGINE_FAILED,
        detail=one_line(blocked.reason, 500),
    )


def _infected(ruleset: Ruleset, virus: str, findings: tuple[Finding, ...]) -> Verdict:
    """A virus of which no rule speaks."""
    is_deleted = ruleset.policy.engines.clamd.on_virus is OnVirus.DELETE
    return Verdict(
        revision=ruleset.revision,
        decision=Decision.DELETE if is_deleted else Decision.HOLD,
        findings=findings,
        hold_reason=None if is_deleted else HoldReason.VIRUS,
        detail=one_line(f"virus {virus}", 500),
    )


def _is_loop(inspection: Inspection, rule: Rule) -> bool:
    """Whether this rule, or any rule to this address, forwarded the message before."""
    message = inspection.message
    if rule.id in (value.strip() for value in message.fields.get(FORWARDED_BY_FIELD.lower(), ())):
        return True
    wanted = rule.forward_to.casefold()
    return any(
        wanted == address.strip().casefold()
        for value in message.fields.get(ORIGINAL_RECIPIENTS_FIELD.lower(), ())
        for address in value.split(",")
    )


def to_be_kept(screened: Screened, ruleset: Ruleset) -> Screened:
    """What may be stored of it: where the policy says so, no text of the message."""
    if ruleset.policy.excerpts:
        return screened
    outcomes = tuple(msgspec.structs.replace(each, verdict=_without_text(each.verdict)) for each in screened.outcomes)
    return msgspec.structs.replace(screened, verdict=_without_text(screened.verdict), outcomes=outcomes)


def _without_text(verdict: Verdict) -> Verdict:
    findings = tuple(msgspec.structs.replace(finding, excerpt="", chain=()) for finding in verdict.findings)
    changes = tuple(msgspec.structs.replace(made, detail="") for made in verdict.changes)  # names of attachments
    obstacles = tuple(msgspec.structs.replace(each, reason=unquoted(each.reason)) for each in verdict.obstacles)
    detail = detail_of_ours(verdict)
    return msgspec.structs.replace(verdict, findings=findings, changes=changes, obstacles=obstacles, detail=detail)
