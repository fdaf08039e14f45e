"""Tables of database `control`. `migrations/` makes them; a test holds the two together.

Policy objects have no tables of their own: the newest revision's snapshot is the one place where they stand, so that what is edited
and what is published cannot disagree. Credentials stand apart, since a revision must never bring an old password back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Dialect, Index, Integer, LargeBinary, MetaData, Table, Text, TypeDecorator

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


_Serial = BigInteger().with_variant(Integer, "sqlite")

revisions = Table(
    "revisions",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("author", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("snapshot", Text, nullable=False),  # JSON of policy.objects.Snapshot
)

smtp_credentials = Table(
    "smtp_credentials",
    metadata,
    Column("name", Text, primary_key=True),  # case-folded
    Column("password_hash", Text, nullable=False),  # argon2id, PHC string
    Column("scram", Text, nullable=False, server_default=""),  # postern_core.scram.Verifier; "": set before there were any
    Column("at", UtcDateTime, nullable=False),
)

app_passwords = Table(
    "app_passwords",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user", Text, nullable=False),  # case-folded
    Column("name", Text, nullable=False),  # of what it is for
    Column("password_hash", Text, nullable=False),  # argon2id, PHC string
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime),  # within an hour
    Index("ix_app_passwords_user", "user"),
)

route_credentials = Table(
    "route_credentials",
    metadata,
    Column("route", Text, primary_key=True),
    Column("user", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),  # when the password was set; the password itself is in KV SECRETS only
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),  # sha256 of the token, hex
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("revision", Integer),
    Column("changes", Text, nullable=False),  # JSON list of {object, before, after}
)

messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("gate", Text, nullable=False),
    Column("accepted_at", UtcDateTime, nullable=False),
    Column("reverse_path", Text),
    Column("recipients_total", Integer),
    Column("size_bytes", BigInteger),
    Column("client", Text),
    Column("final", Integer, nullable=False, default=0),  # recipients that have come to an end
    Index("ix_messages_accepted_at", "accepted_at"),
    sqlite_with_rowid=False,
)

# What was told of a message in one transaction of the recorder. What is told again may stand in several rows: readers drop the copies.
steps = Table(
    "steps",
    metadata,
    Column("queue_id", Text, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),  # of `told`
    Column("at", UtcDateTime, nullable=False),  # of the newest of them
    Column("told", Text, nullable=False),  # JSON list of [kind, at, service, fields]; kind "disposition" for dispositions
    Index("ix_steps_at", "at"),
    sqlite_with_rowid=False,
)

dispositions = Table(
    "dispositions",
    metadata,
    Column("queue_id", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("standing", Integer, nullable=False),  # 2 × generation + is_final: the highest counts
    Column("generation", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("gate", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("recipients_total", Integer, nullable=False),
    Column("route", Text, nullable=False),
    Column("next_hop", Text, nullable=False),
    Column("reply", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("successor_id", Text, nullable=False),
    sqlite_with_rowid=False,
)

# One record of postern_core.session_log a row, in the order of time. The key makes a batch that comes twice count once.
session_log = Table(
    "session_log",
    metadata,
    Column("at", UtcDateTime, primary_key=True),
    Column("session", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("gate", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("server", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("tls", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("argument", Text, nullable=False),
    Column("code", Integer, nullable=False),
    Column("received_bytes", BigInteger, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("taken_ms", BigInteger, nullable=False),
    Column("commands", Integer, nullable=False),
    Column("errors", Integer, nullable=False),
    Column("messages", Integer, nullable=False),
    Column("recipients", Integer, nullable=False),
    sqlite_with_rowid=False,
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("queue_id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # in stream QUARANTINE
    Column("generation", Integer, nullable=False),
    Column("gate", Text, nullable=False),
    Column("accepted_at", UtcDateTime, nullable=False),
    Column("reverse_path", Text, nullable=False),
    Column("recipients", Text, nullable=False),  # JSON list of addresses
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("rule_id", Text, nullable=False),
    Column("rule_name", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("client", Text, nullable=False),
    Index("ix_quarantine_sequence", "sequence"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("state", Text, nullable=False),  # JSON of alerts.thresholds.AlertState; whoever counts holds this row's lock
)

# What was counted already: the bus may tell it again.
alert_batches = Table(
    "alert_batches",
    metadata,
    Column("key", LargeBinary, primary_key=True),  # sha256 of the message
    Column("at", UtcDateTime, nullable=False),
    Index("ix_alert_batches_at", "at"),
)

# Alarms that were counted and are not over: each replica of the api sees them.
alert_alarms = Table(
    "alert_alarms",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("about", Text, primary_key=True),
    Column("severity", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

alert_raises = Table(
    "alert_raises",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("raised_at", UtcDateTime, nullable=False),  # by the clock of whoever told
    Column("recorded_at", UtcDateTime, nullable=False),  # by ours
    Column("first_at", UtcDateTime, nullable=False),
    Column("events", BigInteger, nullable=False),  # how many
    Column("subjects", Text, nullable=False),  # JSON list of alerts.thresholds.Subject
    Index("ix_alert_raises_recorded_at", "recorded_at"),
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("raise_id", BigInteger, nullable=False),
    Column("channel", Text, nullable=False),  # alerts.repository.Channel
    Column("target", Text, nullable=False),  # an address, a URL, a gate
    Column("state", Text, nullable=False),  # alerts.repository.DeliveryState
    Column("attempts", Integer, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column(
        "due_at", UtcDateTime, nullable=False
    ),  # of the next attempt; while one is made, when another replica may take it over
    Column("last_error", Text, nullable=False),
    Index("ix_alert_deliveries_raise_id", "raise_id"),
    Index("ix_alert_deliveries_state_due_at", "state", "due_at"),
    Index("ix_alert_deliveries_target_made_at", "target", "made_at"),
)
