"""The retry queue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "queue",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("queue_id", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reverse_path", sa.Text, nullable=False),
        sa.Column("results", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("accepted_at", _MOMENT, nullable=False),
        sa.Column("queued_at", _MOMENT, nullable=False),
        sa.Column("next_attempt_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("delay_notified", sa.Boolean, nullable=False),
        sa.Column("last_reply", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("lease_owner", sa.Text, nullable=False),
        sa.Column("lease_until", _MOMENT, nullable=True),
        sa.Column("removal", sa.Text, nullable=False),
        sa.Column("removal_actor", sa.Text, nullable=False),
    )
    op.create_index("ix_queue_due", "queue", ["route", "next_attempt_at"])
    op.create_index("ix_queue_next_attempt_at", "queue", ["next_attempt_at"])
    op.create_index("ix_queue_queue_id", "queue", ["queue_id"])


def downgrade() -> None:
    op.drop_table("queue")
