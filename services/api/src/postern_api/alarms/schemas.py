"""Alarms at the HTTP edge."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from postern_api.alarms.kinds import Kind, Severity
from postern_api.fields import Body, examples


class AlarmView(Body):
    """One thing that an administrator has to look at."""

    kind: Kind
    severity: Severity = Field(description="critical: now. warning: today.")
    about: str = Field(description="A stream, `<stream>/<consumer>`, a broker's name, or empty.")
    since: datetime = Field(description="When it was first seen.")
    summary: str = Field(description="What it is.")
    advice: str = Field(description="What to do; docs/operate/alarms.md has more.")
    figures: dict[str, int | float | str | list[str]] = Field(description="The numbers behind it, by kind.")


class AlarmsView(Body):
    """The alarms that are up, the critical ones first."""

    model_config = examples(
        {
            "looked_at": "2026-03-01T09:30:00Z",
            "verified_at": "2026-03-01T09:00:00Z",
            "unseen": [],
            "critical": 0,
            "warning": 1,
            "alarms": [
                {
                    "kind": "stream_filling",
                    "severity": "warning",
                    "about": "INTAKE",
                    "since": "2026-03-01T09:29:45Z",
                    "summary": "INTAKE is 74% full; when it is full, the gates refuse mail with 452 4.3.1",
                    "advice": "see whether the screener runs and keeps up (postern status), and start more replicas of it",
                    "figures": {"fill": 0.7412, "messages": 40211, "bytes": 3183422000, "max_bytes": 4294967296},
                }
            ],
        }
    )

    looked_at: datetime | None = Field(description="When the last look ended; null before the first.")
    verified_at: datetime | None = Field(description="When ledger and mail were last compared; null: not since the start.")
    unseen: list[str] = Field(description="What the last look could not see; alarms about it stay as they were.")
    critical: int
    warning: int
    alarms: list[AlarmView]


class AlarmCounts(Body):
    """How many alarms are up; GET /api/v1/alarms says which."""

    critical: int
    warning: int
