"""When a row may be leased, in a column of its own that the database computes, and an index on it: with a million rows that wait, looking for
what is due costs as much as with a thousand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_DUE_AT = (
    "CASE WHEN removal <> '' THEN coalesce(lease_until, accepted_at)"
    " WHEN state = 'waiting' AND lease_until > next_attempt_at THEN lease_until"
    " WHEN state = 'waiting' THEN next_attempt_at END"
)


def upgrade() -> None:
    stored = (
        op.get_bind().dialect.name != "sqlite"
    )  # SQLite adds no stored one to a table that is there, PostgreSQL has no other kind
    op.add_column("queue", sa.Column("due_at", sa.DateTime(timezone=True), sa.Computed(_DUE_AT, persisted=stored)))
    op.drop_index("ix_queue_due", "queue")
    op.drop_index("ix_queue_next_attempt_at", "queue")
    op.create_index("ix_queue_due", "queue", ["route", "due_at"])


def downgrade() -> None:
    op.drop_index("ix_queue_due", "queue")
    op.drop_column("queue", "due_at")
    op.create_index("ix_queue_due", "queue", ["route", "next_attempt_at"])
    op.create_index("ix_queue_next_attempt_at", "queue", ["next_attempt_at"])
