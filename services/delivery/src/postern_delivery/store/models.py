"""Table `queue`: one row for each job in DEFERRED. `migrations/` makes it; a test holds the two together.

A row says when a job is due and how far it has come; the mail itself is in the stream. Whether a row is *leased* follows from
`lease_until`, so that holding, retrying and removing work while an attempt is under way.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    FetchedValue,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

metadata = MetaData()


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, in UTC in both databases (SQLite stores no zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


queue = Table(
    "queue",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("queue_id", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("state", Text, nullable=False),  # "waiting" or "frozen"
    Column("reverse_path", Text, nullable=False),
    Column("results", Text, nullable=False),  # JSON: the last word about each recipient, the settled ones included
    Column("attempts", Integer, nullable=False),
    Column("accepted_at", UtcDateTime, nullable=False),
    Column("queued_at", UtcDateTime, nullable=False),  # from when delay and expiry count
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("delay_notified", Boolean, nullable=False),
    Column("last_reply", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("lease_owner", Text, nullable=False),  # "" when nobody works on it
    Column("lease_until", UtcDateTime, nullable=True),
    Column("removal", Text, nullable=False),  # "", or "delete" or "bounce": an administrator wants it gone
    Column("removal_actor", Text, nullable=False),
    # when the row may be leased, NULL for never: the end of a lease, else the next attempt, for which a removal does not wait
    Column("due_at", UtcDateTime, FetchedValue(), nullable=True),  # computed by the database (migration 0002)
    Index("ix_queue_due", "route", "due_at"),
    Index("ix_queue_queue_id", "queue_id"),
)
