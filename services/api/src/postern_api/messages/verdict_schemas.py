"""Verdicts at the HTTP edge."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pydantic import Field, JsonValue

from postern_api.fields import Body, examples
from postern_core.policy.why_not import RuleOutcome
from postern_core.verdict import ChangeMade, EngineAnswer, Finding, Obstacle, TextLanguage, Verdict

FINDING: dict[str, JsonValue] = {
    "rule_id": "r-1a2b3c4d",
    "rule_name": "no programs",
    "part": "2",
    "offset": 0,
    "length": 0,
    "chain": [],
    "excerpt": "invoice.exe",
    "monitored": False,
    "continued": False,
}
OUTCOME: dict[str, JsonValue] = {
    "rule_id": "r-9f8e7d6c",
    "rule_name": "bulk senders",
    "outcome": "failed",
    "path": "condition.of.1",
    "because": "it is not so that the sender is one of *.bulk.example",
}
VERDICT_EXAMPLE: dict[str, JsonValue] = {
    "revision": 42,
    "decision": "hold",
    "hold_reason": "rule",
    "forward_to": "",
    "detail": "rule no programs",
    "screening_ms": 0.21,
    "findings": [FINDING],
    "obstacles": [{"kind": "malformed", "part": "1", "reason": "2 content-type fields"}],
    "answers": [{"engine": "clamd", "result": "clean", "detail": "", "ms": 3.1}],
    "unscanned": [],
}


class FindingView(Body):
    """A match: which rule, where, and on what."""

    rule_id: str
    rule_name: str
    part: str = Field(
        description="`envelope`, `header`, or the number of a MIME part as IMAP counts; `2.header` is that of the message in part 2."
    )
    offset: int = Field(description="Bytes into the decoded part, or into the decoded header.")
    length: int = Field(description="Bytes from there; 0 for what is true of the whole part.")
    chain: list[str] = Field(
        description="Inside an archive: the name of the part, then those of its members down to the one in which the offset counts; in a message there, the number of a part without a name, or `header`."
    )
    excerpt: str = Field(description="What matched, at most 72 characters; empty where the policy keeps none.")
    monitored: bool = Field(description="The rule only records what it would do.")
    continued: bool = Field(default=False, description="The rule's action is `continue`: it decided nothing.")

    @classmethod
    def of(cls, finding: Finding) -> FindingView:
        return cls(
            rule_id=finding.rule_id,
            rule_name=finding.rule_name,
            part=finding.part,
            offset=finding.offset,
            length=finding.length,
            chain=list(finding.chain),
            excerpt=finding.excerpt,
            monitored=finding.monitored,
            continued=finding.continued,
        )


class ChangeView(Body):
    """A change of a rule that matched, and what became of it."""

    kind: str = Field(description="As in a rule's `changes`.")
    rule_id: str
    rule_name: str
    part: str = Field(description="That was stripped, or got the disclaimer.")
    address: str = Field(description="Of a copy or a notice.")
    detail: str = Field(description="What was done, or why not; empty where no excerpts are kept.")
    skipped: bool
    monitored: bool

    @classmethod
    def of(cls, made: ChangeMade) -> ChangeView:
        return cls(
            kind=made.kind,
            rule_id=made.rule_id,
            rule_name=made.rule_name,
            part=made.part,
            address=made.address,
            detail=made.detail,
            skipped=made.skipped,
            monitored=made.monitored,
        )


class ObstacleView(Body):
    """What could not be screened, whatever was decided."""

    kind: str = Field(description="As in `/screening/unscannable`.")
    part: str
    reason: str = Field(description="Without what it quotes of the message, where no excerpts are kept.")

    @classmethod
    def of(cls, obstacle: Obstacle) -> ObstacleView:
        return cls(kind=obstacle.kind.value, part=obstacle.part, reason=obstacle.reason)


class AnswerView(Body):
    """What an engine said, or why it could not."""

    engine: str
    result: str = Field(description="`clean`, `found`, `failed`; of rspamd its action.")
    detail: str
    ms: float = Field(description="Milliseconds until it had answered.")

    @classmethod
    def of(cls, answer: EngineAnswer) -> AnswerView:
        return cls(engine=answer.engine.value, result=answer.result, detail=answer.detail, ms=round(answer.ms, 3))


class LanguageView(Body):
    """What the text of the message is mostly written in."""

    code: str = Field(description="ISO 639-1; empty where no language is certain.")
    percent: int = Field(description="Of the letters that were looked at.")
    confidence: float = Field(description="How sure the identifier is, from 0 to 1.")
    letters: int = Field(description="That were looked at; one of Chinese, Japanese or Korean counts for three.")

    @classmethod
    def of(cls, found: TextLanguage) -> LanguageView:
        return cls(code=found.code, percent=found.percent, confidence=found.confidence, letters=found.letters)


class RuleOutcomeView(Body):
    """What came of one rule."""

    rule_id: str
    rule_name: str
    outcome: str = Field(
        description="`decided`; `continued`: its changes were made; `matched`: an earlier rule had decided; `monitored`; `failed`: its condition did not hold; `excepted`: its exception held; "
        "`unknown`: it depends on something that was not asked, or on attachments that were not opened."
    )
    path: str = Field(description="The condition that kept it from matching, by its place in the rule.")
    because: str = Field(description="The same in words.")

    @classmethod
    def all_of(cls, outcomes: Iterable[RuleOutcome]) -> list[RuleOutcomeView]:
        return [
            cls(
                rule_id=each.rule.id,
                rule_name=each.rule.name,
                outcome=each.outcome.value,
                path=each.path,
                because=each.because,
            )
            for each in outcomes
        ]


class VerdictView(Body):
    """What the screener decided about a message, under which revision, and why."""

    revision: int
    decision: str = Field(description="`pass`, `hold`, `delete` or `forward`.")
    hold_reason: str | None
    forward_to: str
    detail: str
    screening_ms: float = Field(description="Milliseconds from the message at hand to the verdict.")
    findings: list[FindingView] = Field(description="Those of the rule that decided first; at most 20.")
    language: LanguageView | None = Field(default=None, description="Null where no rule came to ask for it.")
    changes: list[ChangeView] = Field(default=[], description="Of all rules up to the one that decided, in their order.")
    obstacles: list[ObstacleView] = Field(default=[], description="The first of each kind, then others; at most 10.")
    answers: list[AnswerView] = Field(default=[], description="Of the engines that were asked.")
    unscanned: list[str] = Field(default=[], description="Engines that failed, and without which it passes by policy.")

    @classmethod
    def of(cls, verdict: Verdict) -> VerdictView:
        return cls(
            revision=verdict.revision,
            decision=verdict.decision.value,
            hold_reason=verdict.hold_reason.value if verdict.hold_reason else None,
            forward_to=verdict.forward_to,
            detail=verdict.detail,
            screening_ms=round(verdict.screening_ms, 3),
            findings=[FindingView.of(finding) for finding in verdict.findings],
            language=None if verdict.language is None else LanguageView.of(verdict.language),
            changes=[ChangeView.of(made) for made in verdict.changes],
            obstacles=[ObstacleView.of(obstacle) for obstacle in verdict.obstacles],
            answers=[AnswerView.of(answer) for answer in verdict.answers],
            unscanned=[engine.value for engine in verdict.unscanned],
        )


class MessageVerdict(Body):
    """The verdict of one message."""

    model_config = examples(
        {
            "queue_id": "01j9zq3v5k7wexamp1e0000000",
            "at": "2026-03-01T09:30:00Z",
            "verdict": VERDICT_EXAMPLE,
            "rules": [OUTCOME],
        }
    )

    queue_id: str
    at: datetime | None = Field(description="When the screener told it; null when the telling got lost.")
    verdict: VerdictView
    rules: list[RuleOutcomeView] | None = Field(
        description="With `why_not`: what came of each rule of that revision that was not off."
    )
