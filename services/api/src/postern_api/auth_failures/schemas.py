"""Failed logins at the HTTP edge."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from postern_api.fields import Body, examples


class AuthFailureView(Body):
    """A network or a user whose logins failed lately."""

    model_config = examples(
        {"key": "address:192.0.2.7", "count": 52, "last_at": "2026-03-01T09:30:00Z", "blocked_until": "2026-03-01T10:10:00Z"}
    )

    key: str = Field(description="`address:` and an IPv4 address or the first of an IPv6 /64, or `user:` and a name.")
    count: int = Field(description="Failures since it was last forgotten.")
    last_at: datetime
    blocked_until: datetime | None = Field(description="Until then its logins get 454 4.7.0 unheard; null: they are heard.")


class AuthFailuresView(Body):
    """Those with the most failures first."""

    model_config = examples(
        {
            "rows": [{"key": "user:alice", "count": 3, "last_at": "2026-03-01T09:30:00Z", "blocked_until": None}],
            "total": 1,
            "unknown_names": 17,
        }
    )

    rows: list[AuthFailureView]
    total: int
    unknown_names: int = Field(
        description="Names were tried that no user has. They are not shown: people type passwords where names belong."
    )


class ClearedView(Body):
    """How many were forgotten."""

    model_config = examples({"cleared": 3})

    cleared: int
