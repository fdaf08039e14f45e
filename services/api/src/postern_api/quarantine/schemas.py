"""Held mail at the HTTP edge."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from postern_api.fields import Body, Line, examples


class HeldView(Body):
    """One held message in a list."""

    queue_id: str
    gate: str
    accepted_at: datetime
    reverse_path: str
    recipients: list[str]
    subject: str
    reason: str = Field(
        description="`rule`, `malformed`, `encrypted`, `limit`, `incomplete`, `poison`, `authentication`, `virus`, `engine-failed` or `body-missing`."
    )
    rule_id: str
    rule_name: str
    detail: str
    size_bytes: int
    client: str


class HeldPage(Body):
    """Newest first. For the next page, send `next` as `after`."""

    model_config = examples(
        {
            "rows": [
                {
                    "queue_id": "01j9zq3v5k7wexamp1e0000000",
                    "gate": "anon",
                    "accepted_at": "2026-03-01T09:30:00Z",
                    "reverse_path": "x@sender.example",
                    "recipients": ["alice@example.com"],
                    "subject": "Your invoice",
                    "reason": "rule",
                    "rule_id": "r-1a2b3c4d",
                    "rule_name": "no programs",
                    "detail": "",
                    "size_bytes": 48213,
                    "client": "192.0.2.7",
                }
            ],
            "total": 1,
            "next": "",
        }
    )

    rows: list[HeldView]
    total: int = Field(description="That fit the filters, on all pages.")
    next: str = Field(description="Empty when this is the last page.")


class HeldDetail(Body):
    """One held message: why it is held, its envelope, and its header block."""

    model_config = examples(
        {
            "queue_id": "01j9zq3v5k7wexamp1e0000000",
            "subject": "Your invoice",
            "generation": 0,
            "verdict": {
                "decision": "hold",
                "hold_reason": "rule",
                "findings": [{"rule_id": "r-1a2b3c4d", "rule_name": "no programs", "part": "2", "excerpt": "invoice.exe"}],
            },
            "envelope": {"reverse_path": "x@sender.example"},
            "headers": [["Subject", "Your invoice"]],
        }
    )

    queue_id: str
    subject: str
    generation: int
    verdict: dict[str, Any] = Field(
        description="Decision, findings (rule, part, offset, excerpt), engines' answers, and the reason."
    )
    envelope: dict[str, Any]
    headers: list[tuple[str, str]] = Field(description="The header fields in their order, undecoded, at most 64 KiB of them.")


class Released(Body):
    """The message is on its way to its recipients."""

    model_config = examples({"queue_id": "01j9zq3v5k7wexamp1e0000000", "jobs": ["01j9zq3v5k7wexamp1e0000000-main-1"]})

    queue_id: str
    jobs: list[str] = Field(description="Empty when it had been released before.")


class ForwardBody(Body):
    """Where to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"to": "abuse@example.com"}]})

    to: Line = Field(description="An address; the message goes there instead of to its recipients.")


class Forwarded(Body):
    """The message is on its way to another address."""

    model_config = examples({"queue_id": "01j9zq3v5k7wexamp1e0000000", "successor_id": "01j9zq3v5k7wexamp1e1111111"})

    queue_id: str
    successor_id: str = Field(description="Queue id of the copy; empty when it had been forwarded before.")
