"""Rehearsals at the HTTP edge."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue

from postern_api.fields import Body, Whole, examples
from postern_api.rules.schemas import RuleBody
from postern_api.screening.rehearsal import Change, Rehearsal, Source
from postern_core.verdict import Verdict

_VIEW: dict[str, JsonValue] = {
    "id": "h-01j9zq3v5k7wexamp1e0000000",
    "by": "ann (t-0a1b2c3d4e5f)",
    "state": "done",
    "detail": "",
    "waiting": False,
    "source": "archive",
    "hours": 24,
    "revision": 42,
    "draft": True,
    "begun_at": "2026-03-01T09:30:00Z",
    "ended_at": "2026-03-01T09:31:10Z",
    "progress": 1.0,
    "examined": 18230,
    "left_out": 2,
    "failed": 0,
    "changed": 1,
}


class RehearsalBody(Body):
    """What rules, and on what mail."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"source": "archive", "hours": 24},
                {
                    "source": "all",
                    "rules": [{"name": "invoices", "condition": {"type": "keyword", "phrases": ["invoice"]}, "action": "hold"}],
                },
            ]
        }
    )

    source: Source = Field(default=Source.ALL, description="`held` mail, the `archive` of recent traffic, or `all` of it.")
    hours: Whole = Field(default=24, ge=1, le=720, description="Of the archive: the last so many.")
    revision: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(default=None, description="Default: the newest.")
    rules: list[RuleBody] | None = Field(
        default=None,
        max_length=10_000,
        description="In place of those of the revision. Without: who would have been caught by the rules in force now?",
    )
    most: Whole = Field(default=100_000, ge=1, le=1_000_000, description="Messages, then it ends.")


class End(Body):
    """A verdict in short."""

    decision: str
    hold_reason: str | None
    rule_id: str = Field(description="The rule that decided; empty when none did.")
    rule_name: str
    forward_to: str

    @classmethod
    def of(cls, verdict: Verdict) -> End:
        decided = verdict.deciding
        return cls(
            decision=verdict.decision.value,
            hold_reason=verdict.hold_reason.value if verdict.hold_reason else None,
            rule_id=decided.rule_id if decided else "",
            rule_name=decided.rule_name if decided else "",
            forward_to=verdict.forward_to,
        )


class ChangeView(Body):
    """A message that would come to another end."""

    queue_id: str
    source: str
    before: End
    after: End
    sender: str
    recipients: list[str] = Field(description="At most 20 of them.")
    subject: str

    @classmethod
    def of(cls, change: Change) -> ChangeView:
        return cls(
            queue_id=change.queue_id,
            source=change.source,
            before=End.of(change.before),
            after=End.of(change.after),
            sender=change.sender,
            recipients=list(change.recipients),
            subject=change.subject,
        )


class RecipientCount(Body):
    """Who got how many messages that would be caught now."""

    recipient: str
    messages: int


class RehearsalView(Body):
    """How far a rehearsal is."""

    model_config = examples(_VIEW)

    id: str
    by: str
    state: str = Field(description="`running`, `done`, `stopped` or `failed`.")
    detail: str = Field(description="Why it failed.")
    waiting: bool = Field(description="It waits, because live mail does.")
    source: str
    hours: int
    revision: int
    draft: bool
    begun_at: datetime
    ended_at: datetime | None
    progress: float = Field(description="0 to 1, by what was read of the sources.")
    examined: int
    left_out: int = Field(description="Unreadable, or too large to be tried.")
    failed: int = Field(
        description="Their inspection failed, as that of live mail like them would, got no processor in time, or lacked the answer of an engine."
    )
    changed: int = Field(description="Messages that would come to another end.")

    @classmethod
    def of(cls, each: Rehearsal) -> RehearsalView:
        return cls(**_head(each))


class RehearsalResult(RehearsalView):
    """A rehearsal, with what it has found so far."""

    model_config = examples(
        _VIEW
        | {
            "changes": [
                {
                    "queue_id": "01j9zq3v5k7wexamp1e0000000",
                    "source": "archive",
                    "before": {"decision": "pass", "hold_reason": None, "rule_id": "", "rule_name": "", "forward_to": ""},
                    "after": {
                        "decision": "hold",
                        "hold_reason": "rule",
                        "rule_id": "draft-1",
                        "rule_name": "invoices",
                        "forward_to": "",
                    },
                    "sender": "x@sender.example",
                    "recipients": ["alice@example.com"],
                    "subject": "Your invoice",
                }
            ],
            "already_got": [{"recipient": "alice@example.com", "messages": 1}],
        }
    )

    changes: list[ChangeView] = Field(description="The first 1000.")
    already_got: list[RecipientCount] = Field(
        description="Recipients of mail that passed and would not pass now, those with the most first; of a thousand."
    )

    @classmethod
    def of(cls, each: Rehearsal) -> RehearsalResult:
        counts = [RecipientCount(recipient=address, messages=number) for address, number in each.caught.most_common()]
        return cls(**_head(each), changes=[ChangeView.of(change) for change in each.changes], already_got=counts)


def _head(each: Rehearsal) -> dict[str, object]:
    return {
        "id": each.id,
        "by": each.actor,
        "state": each.state.value,
        "detail": each.detail,
        "waiting": each.waiting,
        "source": each.source.value,
        "hours": each.hours,
        "revision": each.draft.policy.revision,
        "draft": each.draft.is_draft,
        "begun_at": each.begun_at,
        "ended_at": each.ended_at,
        "progress": round(each.progress, 3),
        "examined": each.examined,
        "left_out": each.left_out,
        "failed": each.failed,
        "changed": each.changed,
    }
