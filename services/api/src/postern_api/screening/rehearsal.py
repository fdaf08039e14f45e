"""One rehearsal: how far it is, and what it has found. What it keeps is bounded, and the counts are whole."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from postern_api.screening.drafts import Draft
from postern_api.screening.sources import Earlier
from postern_core.envelope import Envelope
from postern_core.ids import QueueId
from postern_core.policy import ScreeningPolicy
from postern_core.trial import Tried
from postern_core.verdict import Decision, Finding, HoldReason, Verdict

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MOST_CHANGES: Final = 1000  # listed; all are counted
MOST_RECIPIENTS: Final = 1000
MOST_SHOWN_RECIPIENTS: Final = 20  # of one message


class Source(enum.StrEnum):
    """What mail a rehearsal goes through."""

    HELD = "held"
    ARCHIVE = "archive"
    ALL = "all"


class State(enum.StrEnum):
    """How far a rehearsal is."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Change:
    """A message that would come to another end, for these recipients."""

    queue_id: QueueId
    source: str
    before: Verdict
    after: Verdict
    sender: str
    recipients: tuple[str, ...]
    subject: str


@dataclass(slots=True)
class Rehearsal:
    """One of them, as far as it is."""

    id: str
    actor: str
    source: Source
    hours: int
    draft: Draft
    most: int
    begun_at: datetime
    state: State = State.RUNNING
    detail: str = ""
    ended_at: datetime | None = None
    waiting: bool = False  # for live mail
    beside_live_mail: bool = False
    rest_s: float = 0.0  # before the next request
    progress: float = 0.0
    examined: int = 0
    left_out: int = 0  # unreadable, or too large to be tried
    failed: int = 0  # their inspection failed, or an engine did not answer
    changed: int = 0
    changes: list[Change] = field(default_factory=list)
    caught: Counter[str] = field(default_factory=Counter)  # recipients of mail that passed and would not


def compare(rehearsal: Rehearsal, earlier: Earlier, tried: Tried) -> None:
    """Note what a message came to then, and would come to now."""
    rehearsal.examined += 1
    if tried.verdict is None or _lacks_an_engine(tried):
        rehearsal.failed += 1
        return
    if earlier.verdict is None or earlier.envelope is None:
        return
    everybody = tuple(recipient.address for recipient in earlier.envelope.recipients)
    ends = [(share.recipients, share.verdict) for share in tried.shares] or [(everybody, tried.verdict)]
    before = (earlier.verdict.decision, earlier.verdict.forward_to)
    others = [(whom, after) for whom, after in ends if (after.decision, after.forward_to) != before]
    rehearsal.changed += bool(others)
    for recipients, after in others:
        _note(rehearsal, earlier, tried, earlier.envelope, recipients, earlier.verdict, after)


def _lacks_an_engine(tried: Tried) -> bool:
    """Whether the verdict tells of an engine that did not answer just now, and not of the rules."""
    verdicts = [share.verdict for share in tried.shares] or ([] if tried.verdict is None else [tried.verdict])
    return any(verdict.hold_reason is HoldReason.ENGINE_FAILED or verdict.unscanned for verdict in verdicts)


def _note(
    rehearsal: Rehearsal,
    earlier: Earlier,
    tried: Tried,
    envelope: Envelope,
    recipients: tuple[str, ...],
    before: Verdict,
    after: Verdict,
) -> None:
    if len(rehearsal.changes) < MOST_CHANGES:
        subject = tried.subject or earlier.subject
        shown = recipients[:MOST_SHOWN_RECIPIENTS]
        change = Change(envelope.id, earlier.source, _in_short(before), _in_short(after), envelope.reverse_path, shown, subject)
        rehearsal.changes.append(change)
    if before.decision is Decision.PASS:
        for address in recipients:
            if address in rehearsal.caught or len(rehearsal.caught) < MOST_RECIPIENTS:
                rehearsal.caught[address] += 1


def _in_short(verdict: Verdict) -> Verdict:
    """What is shown of it. A verdict may have tens of thousands of octets that a sender chose, and thousands of them are kept."""
    found = verdict.deciding
    decided = () if found is None else (Finding(rule_id=found.rule_id, rule_name=found.rule_name, part=found.part),)
    return Verdict(
        revision=verdict.revision,
        decision=verdict.decision,
        findings=decided,
        hold_reason=verdict.hold_reason,
        forward_to=verdict.forward_to,
    )


def progress(source: Source, each: Earlier) -> float:
    """Held mail is the first half of a rehearsal of both."""
    if source is not Source.ALL:
        return each.read
    return each.read / 2 + (0.5 if each.source == "archive" else 0.0)


def end(rehearsal: Rehearsal, state: State, detail: str = "") -> None:
    """It is over."""
    rehearsal.state, rehearsal.detail, rehearsal.ended_at, rehearsal.waiting = state, detail, datetime.now(UTC), False
    # of its rules, which may be a hundred thousand phrases, nobody asks any more
    rehearsal.draft = Draft(ScreeningPolicy(revision=rehearsal.draft.policy.revision), rehearsal.draft.is_draft)
    log.info(
        "rehearsal.ended",
        rehearsal=rehearsal.id,
        state=state.value,
        examined=rehearsal.examined,
        changed=rehearsal.changed,
        reason=detail,
    )
