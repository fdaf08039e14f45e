"""The audit log at the HTTP edge."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from postern_api.fields import Body, examples


class AuditView(Body):
    """Who did what to what, when."""

    id: int
    at: datetime
    actor: str
    action: str = Field(examples=["rule.added"])
    target: str = Field(examples=["rules/r-1a2b3c4d"])
    outcome: str = Field(description="`done`, `failed`, or `started`: an act on mail that was cut short, and may be repeated.")
    revision: int | None
    changes: list[dict[str, Any]] = Field(description="Each changed object with its value before and after; no secrets.")


class AuditPage(Body):
    """Newest first. For the next page, send the last id as `before`."""

    model_config = examples(
        {
            "entries": [
                {
                    "id": 7,
                    "at": "2026-03-01T09:30:00Z",
                    "actor": "night shift (t-0a1b2c3d4e5f)",
                    "action": "quarantine.release",
                    "target": "quarantine/01j9zq3v5k7wexamp1e0000000",
                    "outcome": "done",
                    "revision": None,
                    "changes": [],
                }
            ]
        }
    )

    entries: list[AuditView]
