"""Queue and badmail at the HTTP edge."""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field, model_validator

from postern_api.fields import Body, Flag, Line, examples
from postern_core.control import QueueAction, QueueState


class QueueSelection(Body):
    """Which jobs: exactly one of `queue_id`, `job_id`, `route` and `all`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queue_id": "01j9zq3v5k7wexamp1e0000000"}, {"route": "main"}, {"all": True}]}
    )

    queue_id: Line | None = Field(default=None, description="All jobs of one message.")
    job_id: Line | None = Field(default=None, description="One job: `<queue-id>-<route>-<generation>`.")
    route: Line | None = Field(default=None, description="All jobs of one route.")
    all: Flag = Field(default=False, description="All jobs.")

    @model_validator(mode="after")
    def _exactly_one(self) -> QueueSelection:
        # an empty name must never come to mean all of them
        named = [name for name in (self.queue_id, self.job_id, self.route) if name is not None]
        if "" in named or len(named) + self.all != 1:
            raise ValueError("exactly one of queue_id, job_id, route and all is needed")
        return self

    def to_action(self, actor: str) -> QueueAction:
        return QueueAction(job_id=self.job_id or "", queue_id=self.queue_id or "", route=self.route or "", actor=actor)


class QueueDeletion(QueueSelection):
    """Which jobs to delete, and whether their senders are told."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"queue_id": "01j9zq3v5k7wexamp1e0000000", "with_ndr": True}]})

    with_ndr: Flag = Field(default=False, description="Return the mail to its sender (NDR) instead of ending it silently.")

    def to_action(self, actor: str) -> QueueAction:
        chosen = super().to_action(actor)
        return QueueAction(
            job_id=chosen.job_id, queue_id=chosen.queue_id, route=chosen.route, with_ndr=self.with_ndr, actor=chosen.actor
        )


class QueueRowView(Body):
    """One deferred job."""

    job_id: str
    queue_id: str
    route: str
    state: QueueState
    reverse_path: str
    recipients: list[str] = Field(description="Those still open.")
    attempts: int
    accepted_at: datetime
    next_attempt_at: datetime
    expires_at: datetime
    last_reply: str
    size_bytes: int


class QueuePageView(Body):
    """For the next page, send the last job id as `after`."""

    model_config = examples(
        {
            "rows": [
                {
                    "job_id": "01j9zq3v5k7wexamp1e0000000-main-0",
                    "queue_id": "01j9zq3v5k7wexamp1e0000000",
                    "route": "main",
                    "state": "waiting",
                    "reverse_path": "x@sender.example",
                    "recipients": ["alice@example.com"],
                    "attempts": 2,
                    "accepted_at": "2026-03-01T09:30:00Z",
                    "next_attempt_at": "2026-03-01T10:15:00Z",
                    "expires_at": "2026-03-03T09:30:00Z",
                    "last_reply": "451 4.3.0 try again later",
                    "size_bytes": 48213,
                }
            ],
            "total": 1,
        }
    )

    rows: list[QueueRowView]
    total: int


class QueueChangedView(Body):
    """How many jobs it was done to."""

    model_config = examples({"changed": 3})

    changed: int


class BadmailRowView(Body):
    """One dead letter."""

    job_id: str
    queue_id: str
    reverse_path: str
    recipients: list[str]
    reason: str
    at: datetime
    last_reply: str


class BadmailPageView(Body):
    """For the next page, send the last job id as `after`."""

    model_config = examples(
        {
            "rows": [
                {
                    "job_id": "01j9zq3v5k7wexamp1e0000000-main-0",
                    "queue_id": "01j9zq3v5k7wexamp1e0000000",
                    "reverse_path": "",
                    "recipients": ["nobody@example.com"],
                    "reason": "an NDR that could not be delivered",
                    "at": "2026-03-01T09:30:00Z",
                    "last_reply": "550 5.1.1 no such user",
                }
            ],
            "total": 1,
        }
    )

    rows: list[BadmailRowView]
    total: int
