"""The trace with a row of steps for each message and transaction instead of one for each event, and with fewer b-trees: what costs least to write.

Table `events` becomes `steps`, a row each. In SQLite the trace's tables are kept in the order of their keys (WITHOUT ROWID), without a second tree for
that. The index on recipients goes: a part of an address is asked for, which it never helped with.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TOLD = {
    # the same text as the recorder's; times as it writes them
    "sqlite": "'[' || json_array(kind, replace(at, ' ', 'T') || 'Z', service, json(fields)) || ']'",
    "postgresql": """'[' || json_build_array(kind, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24\\:MI\\:SS.US"Z"'), service, fields\\:\\:json) || ']'""",
}
_DIGEST = {"sqlite": "CAST(digest AS BLOB)", "postgresql": "decode(digest, 'hex')"}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.create_table(
        "steps",
        sa.Column("queue_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", "digest"),
        sqlite_with_rowid=False,
    )
    told, digest = _TOLD[dialect], _DIGEST[dialect]
    # in the order of the key: each page is written once
    op.execute(
        f"INSERT INTO steps (queue_id, digest, at, told) SELECT queue_id, {digest}, at, {told} FROM events ORDER BY queue_id, digest"  # noqa: S608
    )
    op.drop_table("events")
    op.create_index("ix_steps_at", "steps", ["at"], unique=False)
    op.drop_index("ix_dispositions_recipient", "dispositions")
    if dialect == "sqlite":
        op.drop_index("ix_messages_accepted_at", "messages")
        _without_rowid(
            "messages",
            ["id"],
            sa.Column("id", sa.Text(), nullable=False),
            sa.Column("gate", sa.Text(), nullable=False),
            sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("reverse_path", sa.Text(), nullable=True),
            sa.Column("recipients_total", sa.Integer(), nullable=True),
            sa.Column("size_bytes", sa.BigInteger(), nullable=True),
            sa.Column("client", sa.Text(), nullable=True),
            sa.Column("final", sa.Integer(), nullable=False),
        )
        op.create_index("ix_messages_accepted_at", "messages", ["accepted_at"], unique=False)
        _without_rowid(
            "dispositions",
            ["queue_id", "n"],
            sa.Column("queue_id", sa.Text(), nullable=False),
            sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
            sa.Column("standing", sa.Integer(), nullable=False),
            sa.Column("generation", sa.Integer(), nullable=False),
            sa.Column("kind", sa.Text(), nullable=False),
            sa.Column("gate", sa.Text(), nullable=False),
            sa.Column("at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("recipient", sa.Text(), nullable=False),
            sa.Column("recipients_total", sa.Integer(), nullable=False),
            sa.Column("route", sa.Text(), nullable=False),
            sa.Column("next_hop", sa.Text(), nullable=False),
            sa.Column("reply", sa.Text(), nullable=False),
            sa.Column("detail", sa.Text(), nullable=False),
            sa.Column("successor_id", sa.Text(), nullable=False),
        )


def _without_rowid(name: str, key: list[str], *columns: sa.Column[Any]) -> None:
    listed = ", ".join(column.name for column in columns)
    op.create_table(f"{name}_new", *columns, sa.PrimaryKeyConstraint(*key), sqlite_with_rowid=False)
    op.execute(f"INSERT INTO {name}_new ({listed}) SELECT {listed} FROM {name} ORDER BY {', '.join(key)}")  # noqa: S608
    op.drop_table(name)
    op.rename_table(f"{name}_new", name)


def downgrade() -> None:
    raise NotImplementedError("restore the database from a backup")
