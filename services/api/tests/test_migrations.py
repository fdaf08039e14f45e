"""What an older version wrote is there after the migrations, in either database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, make_url, text

from fixtures.api import an_end, an_envelope
from postern_api.ledger.repository import LedgerRepository
from postern_api.ledger.service import balances
from postern_api.messages.repository import TraceRepository
from postern_api.policy.repository import PolicyRepository
from postern_api.store import migrating
from postern_api.store.database import Database
from postern_api.store.migrating import migrate
from postern_core.disposition import Disposition, DispositionKind
from postern_core.events import EventKind, TraceEvent

AT = datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture
async def old(database_url: str) -> AsyncIterator[Database]:
    """A database of the first schema."""
    from alembic import command
    from alembic.config import Config

    def first(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrating.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    made = Database(make_url(database_url))
    async with made.write() as connection:
        await connection.run_sync(first)
    yield made
    await made.close()


async def insert(database: Database, table: str, **values: Any) -> None:
    stored = {name: database.stored_time(value) if isinstance(value, datetime) else value for name, value in values.items()}
    names = ", ".join(stored)
    async with database.write() as connection:
        await connection.execute(
            text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(':' + name for name in stored)})"), stored
        )


def columns(end: Disposition) -> dict[str, Any]:
    return {
        "queue_id": end.id,
        "n": end.n,
        "standing": 1,
        "generation": 0,
        "kind": end.kind.value,
        "gate": end.gate.value,
        "at": end.at,
        "recipient": end.recipient,
        "recipients_total": end.recipients_total,
        "route": "main",
        "next_hop": "",
        "reply": "",
        "detail": "",
        "successor_id": "",
    }


async def test_a_password_that_was_set_before_there_were_verifiers_has_none(old: Database) -> None:
    await insert(old, "smtp_credentials", name="alice", password_hash="a hash", at=AT)
    await migrate(old)
    policy = PolicyRepository(old)
    assert (await policy.password_hashes(), await policy.scram_verifiers()) == ({"alice": "a hash"}, {})
    async with old.write() as connection:
        await policy.set_password_hash(connection, "Alice", "another", "a verifier")
    assert (await policy.password_hashes(), await policy.scram_verifiers()) == ({"alice": "another"}, {"alice": "a verifier"})


async def test_the_trace_of_the_first_schema_is_told_as_before(old: Database) -> None:
    envelope = an_envelope()
    end = an_end(envelope, DispositionKind.DELIVERED, at=AT + timedelta(seconds=1), route="main", detail='a "quote", a NUL \0')
    fields: dict[str, str | int | float | bool] = {"part": "1\0", "name": 'a "b" \\ ä', "ms": 0.25, "size": 2**53, "tls": True}
    step = TraceEvent(id=envelope.id, kind=EventKind.SCREENED, at=AT, service="screener", fields=fields)
    await insert(
        old,
        "messages",
        id=envelope.id,
        gate="anon",
        accepted_at=AT,
        reverse_path="x@sender.example",
        recipients_total=1,
        size_bytes=5,
        client="192.0.2.7",
        final=1,
    )
    for number, (kind, at, service, told) in enumerate(
        [("screened", AT, "screener", msgspec.json.encode(fields)), ("disposition", end.at, "", msgspec.json.encode(end))]
    ):
        row = {"queue_id": envelope.id, "kind": kind, "at": at, "service": service, "fields": told.decode()}
        await insert(old, "events", digest=f"{number:032x}", **row)
    await insert(old, "dispositions", **columns(end))
    await migrate(old)

    trace, ledger = TraceRepository(old), LedgerRepository(old)
    for _ in range(2):  # and the same once more, when it has been told again
        found = await trace.trace(envelope.id)
        assert found.message is not None
        assert (found.message.accepted_at, found.message.reverse_path, found.message.is_open) == (AT, "x@sender.example", False)
        assert [(each.kind, each.at, each.service, each.fields) for each in found.events] == [
            ("screened", AT, "screener", fields)
        ]
        assert [(each.kind, each.at, each.fields) for each in found.history] == [
            ("disposition", end.at, msgspec.json.decode(msgspec.json.encode(end)))
        ]
        assert [(each.kind, each.at, each.route) for each in found.dispositions] == [("delivered", end.at, "main")]
        assert await ledger.newest_event_at() == end.at
        assert balances(*await ledger.totals(AT))["anon"].model_dump(exclude_defaults=True) == {"accepted": 1, "delivered": 1}
        await trace.record([step], [end])
