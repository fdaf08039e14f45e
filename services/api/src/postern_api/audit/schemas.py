"""The audit log at the HTTP edge."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from postern_api.fields import Body


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

    entries: list[AuditView]
