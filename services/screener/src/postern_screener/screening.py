"""Findings → verdict: the first rule, in the administrator's order, that matches anywhere in the message decides (OLD-PRODUCT 2.31).

Pure: the same envelope, bytes and rules always give the same verdict. Rules judge what could be read; when none matches and the message
has a defect it is held (2.44: a filter that cannot read a message does not let it pass). A message that does not parse at all is judged
by its reverse-path, by the From: fields found in its bytes, and by keywords over those bytes, and then held.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from postern_core.envelope import Envelope
from postern_core.policy import Rule
from postern_core.verdict import Action, Decision, Finding, HoldReason, Verdict
from postern_screener.checks.hit import Hit
from postern_screener.defects import Defect
from postern_screener.mime import MalformedError, Message, parse_message
from postern_screener.ruleset import Ruleset
from postern_screener.text import searchable

ORIGINAL_RECIPIENTS_FIELD: Final = "X-Postern-Original-Recipients"
FORWARDED_BY_FIELD: Final = "X-Postern-Forwarded-By"
EXCERPT_CHARACTERS: Final = 72
SUBJECT_CHARACTERS: Final = 200
MAX_FINDINGS: Final = 5
_FROM_LINE: Final = re.compile(rb"^from[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE)
_DECISION_OF: Final = {Action.DELETE: Decision.DELETE, Action.HOLD: Decision.HOLD, Action.FORWARD: Decision.FORWARD}


class Screened(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, and what the lists of held mail show beside it."""

    verdict: Verdict
    subject: str = ""


def screen(envelope: Envelope, body: bytes, ruleset: Ruleset) -> Screened:
    """Screen one message under one revision. Never raises for anything in the message."""
    try:
        message = parse_message(body)
    except MalformedError as error:
        hits = _first_hits(_raw_hits(envelope, body, ruleset))
        verdict = _by_rule(hits, ruleset, lambda _: FORWARDED_BY_FIELD.lower().encode() in body.lower())
        return Screened(verdict=verdict or _malformed(ruleset, Defect("1", f"the message does not parse: {error}")))
    verdict = _by_rule(_first_hits(_hits(envelope, message, ruleset)), ruleset, functools.partial(_is_loop, message))
    if verdict is None:
        verdict = _malformed(ruleset, message.defects[0]) if message.defects else _unruled(envelope, ruleset)
    return Screened(verdict=verdict, subject=one_line(message.field("subject"), SUBJECT_CHARACTERS))


def _hits(envelope: Envelope, message: Message, ruleset: Ruleset) -> Iterator[Hit]:
    """All hits in the order of the message: envelope, header fields, then part by part."""
    yield from ruleset.senders.check(envelope.reverse_path, message.fields.get("from", ()))
    for k, block in enumerate(message.headers):
        yield from ruleset.keywords.check_header(block.part, block.readings, is_nested=k > 0)
    for part in message.parts:
        yield from ruleset.attachments.check(part)
        if part.is_text and ruleset.keywords.wants_body:
            yield from ruleset.keywords.check_text(part.path, searchable(part.content(), part.charset, is_html=part.is_html))


def _raw_hits(envelope: Envelope, body: bytes, ruleset: Ruleset) -> Iterator[Hit]:
    from_fields = [found.decode("utf-8", "replace") for found in _FROM_LINE.findall(body[:262_144])[:10]]
    yield from ruleset.senders.check(envelope.reverse_path, from_fields)
    if ruleset.keywords.wants_body:
        yield from ruleset.keywords.check_text("1", searchable(body, "", is_html=True))


def _first_hits(hits: Iterator[Hit]) -> list[Hit]:
    """The first hit of each rule, in the order of the rules."""
    first: dict[int, Hit] = {}
    for hit in hits:
        first.setdefault(hit.rule, hit)
    return [first[rule] for rule in sorted(first)]


def _by_rule(hits: list[Hit], ruleset: Ruleset, is_loop: Callable[[Rule], bool]) -> Verdict | None:
    if not hits:
        return None
    findings = tuple(_finding(hit, ruleset.rules[hit.rule]) for hit in hits[:MAX_FINDINGS])
    rule = ruleset.rules[hits[0].rule]
    decision, detail = _DECISION_OF[rule.action], ""
    if decision is Decision.FORWARD and is_loop(rule):
        decision, detail = Decision.HOLD, f"held instead of forwarded: it was forwarded to {rule.forward_to} before"
    return Verdict(
        revision=ruleset.revision,
        decision=decision,
        findings=findings,
        hold_reason=HoldReason.RULE if decision is Decision.HOLD else None,
        forward_to=rule.forward_to if decision is Decision.FORWARD else "",
        detail=detail or f"rule {rule.name}",
    )


def _finding(hit: Hit, rule: Rule) -> Finding:
    offset, excerpt = hit.locate()
    return Finding(
        rule_id=rule.id, rule_name=rule.name, part=hit.part, offset=offset, excerpt=one_line(excerpt, EXCERPT_CHARACTERS)
    )


def _unruled(envelope: Envelope, ruleset: Ruleset) -> Verdict:
    """What no rule speaks of passes, unless the gate asks for it to be held."""
    if not envelope.hold:
        return Verdict(revision=ruleset.revision, decision=Decision.PASS)
    return Verdict(
        revision=ruleset.revision,
        decision=Decision.HOLD,
        hold_reason=HoldReason.AUTHENTICATION,
        detail=one_line(envelope.hold, 500),
    )


def _malformed(ruleset: Ruleset, defect: Defect) -> Verdict:
    return Verdict(
        revision=ruleset.revision,
        decision=Decision.HOLD,
        hold_reason=HoldReason.MALFORMED,
        detail=one_line(f"part {defect.part}: {defect.reason}", 500),
    )


def _is_loop(message: Message, rule: Rule) -> bool:
    """Whether this rule, or any rule to this address, forwarded the message before."""
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
