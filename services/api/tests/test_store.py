"""The database, SQLite and PostgreSQL alike: migrations, revisions, trace, ledger, quarantine index."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import Connection, inspect, make_url, text
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from fixtures.api import a_held_message, an_end, an_envelope
from postern_api.audit.repository import AuditRepository
from postern_api.ledger.repository import LedgerRepository
from postern_api.ledger.service import balances, total
from postern_api.messages.repository import TraceRepository
from postern_api.policy.objects import GeneralSettings, Snapshot, UserObject
from postern_api.policy.repository import PolicyRepository
from postern_api.quarantine.indexing import index_row
from postern_api.quarantine.repository import QuarantineIndex
from postern_api.store.database import Database, is_away
from postern_api.store.migrating import HEAD, migrate, upgrade
from postern_api.store.models import metadata
from postern_api.tokens.repository import TokenRepository
from postern_api.tokens.scopes import Scope
from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Envelope, Gate
from postern_core.events import EventKind, TraceEvent

SNAPSHOT = Snapshot(settings=GeneralSettings(hostname="mx.example"), users=(UserObject(name="ä"),))


async def test_replicas_that_start_at_once_migrate_once(database_url: str) -> None:
    replicas = [Database(make_url(database_url)) for _ in range(3)]
    await asyncio.gather(*(migrate(replica) for replica in replicas))
    async with replicas[0].read() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [HEAD]
    for replica in replicas:
        await replica.close()


async def test_a_replica_waits_for_another_one_that_writes_the_first_tables(tmp_path: Path) -> None:
    """Was: "database is locked" at once, since SQLite's own patience does not cover the step to WAL."""
    path = tmp_path / "control.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    database = Database(make_url(f"sqlite+aiosqlite:///{path}"))
    starting = asyncio.create_task(migrate(database))
    await asyncio.wait({starting}, timeout=0.3)
    other.execute("COMMIT")
    other.close()
    await starting
    await database.close()


def shape(connection: Connection) -> dict[str, object]:
    """Everything about the tables but the order of their columns."""
    inspector = inspect(connection)
    found: dict[str, object] = {}
    for table in sorted({*inspector.get_table_names()} - {"alembic_version"}):
        columns = {each["name"]: (str(each["type"]), each["nullable"], each["default"]) for each in inspector.get_columns(table)}
        found[table] = (columns, inspector.get_pk_constraint(table)["constrained_columns"], inspector.get_foreign_keys(table))
    if connection.dialect.name == "postgresql":
        texts = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    else:
        texts = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        without = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%WITHOUT ROWID%'"))
        found["without rowid"] = sorted(without.scalars())
    found["indexes"] = {name: definition for name, definition in connection.execute(text(texts)) if "alembic" not in name}
    return found


async def test_a_new_database_has_the_tables_that_the_migrations_make(database_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    database = Database(make_url(database_url))
    async with database.write() as connection:
        await connection.run_sync(upgrade)
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [HEAD]
        migrated = await connection.run_sync(shape)
        differences = await connection.run_sync(lambda sync: compare_metadata(MigrationContext.configure(sync), metadata))
        await connection.run_sync(metadata.drop_all)
        await connection.execute(text("DROP TABLE alembic_version"))
    assert differences == []
    await migrate(database)
    async with database.read() as connection:
        assert await connection.run_sync(shape) == migrated
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [HEAD]
    await database.close()


async def test_a_database_with_tables_of_somebody_else_is_migrated_and_keeps_them(database_url: str) -> None:
    database = Database(make_url(database_url))
    async with database.write() as connection:
        await connection.execute(text("CREATE TABLE theirs (n INTEGER)"))
    await migrate(database)
    async with database.read() as connection:
        tables = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
    assert {"theirs", "alembic_version", *metadata.tables} == tables
    await database.close()


async def test_sqlite_syncs_at_each_commit(tmp_path: object) -> None:
    database = Database(make_url(f"sqlite+aiosqlite:///{tmp_path}/new/folder/control.db"))
    async with database.read() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        assert (await connection.execute(text("PRAGMA synchronous"))).scalar() == 2
        assert (await connection.execute(text("PRAGMA busy_timeout"))).scalar() == 10000
    await database.close()


async def test_postgresql_syncs_at_each_commit_whatever_its_default_and_one_that_cannot_is_told_of(postgres_url: str) -> None:
    database = Database(make_url(postgres_url))
    async with database.write() as connection:
        name = (await connection.execute(text("SELECT current_database()"))).scalar()
        await connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
    await database.close()
    database = Database(make_url(postgres_url))
    async with database.read() as connection:
        assert (await connection.execute(text("SHOW synchronous_commit"))).scalar() == "on"
        fsync = (await connection.execute(text("SHOW fsync"))).scalar()
    with capture_logs() as told:
        await migrate(database)
    assert ("database.does_not_sync" in {line["event"] for line in told}) is (fsync != "on")
    await database.close()


@pytest.mark.parametrize("error", [asyncpg.InternalClientError, asyncpg.InterfaceError, asyncpg.PostgresError])
async def test_what_the_driver_raises_past_sqlalchemy_is_a_database_that_is_away(
    postgres_url: str, error: type[Exception]
) -> None:
    """Was: `cannot switch to state 11; another operation (2) is in progress`, of a server that went away, was nobody's."""
    database = Database(make_url(postgres_url))
    for opened in (database.read, database.write):
        with pytest.raises(ConnectionError, match="cannot switch") as raised:
            async with opened():
                raise error("cannot switch to state 11")
        assert is_away(raised.value)
    await database.close()


async def test_a_revision_number_is_taken_once_and_a_failed_change_leaves_nothing(database: Database) -> None:
    policy, audit = PolicyRepository(database), AuditRepository(database)
    async with database.write() as connection:
        await policy.add(connection, 1, "me", "why", SNAPSHOT)
        await audit.add(connection, "me", "act", "target", revision=1)

    async def fail_late() -> None:
        async with database.write() as connection:
            await audit.add(connection, "you", "act", "target", revision=1)
            await policy.set_password_hash(connection, "a", "hash")
            await policy.add(connection, 1, "you", "", SNAPSHOT)

    with pytest.raises(IntegrityError):
        await fail_late()
    newest = await policy.newest()
    assert newest is not None
    assert (newest.number, newest.author, newest.comment, newest.snapshot) == (1, "me", "why", SNAPSHOT)
    assert newest.at.tzinfo is not None
    assert [entry.actor for entry in await audit.page(before=None, limit=10)] == ["me"]
    assert await policy.password_hashes() == {}


async def test_credentials_are_by_caseless_name(database: Database) -> None:
    policy = PolicyRepository(database)
    async with database.write() as connection:
        await policy.set_password_hash(connection, "Ä", "one")
        await policy.set_password_hash(connection, "ä", "two")
        await policy.note_route_password(connection, "r", "u")
        await policy.note_route_password(connection, "r", "v")
    assert await policy.password_hashes() == {"ä": "two"}
    assert await policy.route_users() == {"r": "v"}
    async with database.write() as connection:
        await policy.forget_password_hashes(connection, ["Ä"])
        await policy.forget_route_password(connection, "r")
    assert (await policy.password_hashes(), await policy.route_users()) == ({}, {})


async def test_a_token_is_found_by_its_digest_alone(database: Database) -> None:
    tokens = TokenRepository(database)
    async with database.write() as connection:
        assert await tokens.add(connection, "t-1", name="n", scope=Scope.AUDITOR, token="secret", created_by="me")
        assert not await tokens.add(connection, "t-2", name="n", scope=Scope.ADMIN, token="secret", created_by="me")
    found = await tokens.find("secret")
    assert found is not None
    assert (found.id, found.scope) == ("t-1", Scope.AUDITOR)
    assert await tokens.find("Secret") is None


def accepted(envelope: Envelope, **fields: str | int) -> TraceEvent:
    told: dict[str, str | int | float | bool] = {
        "gate": envelope.gate.value,
        "reverse_path": envelope.reverse_path,
        "recipients": len(envelope.recipients),
        "size_bytes": envelope.size_bytes,
        "client": "192.0.2.7",
    }
    return TraceEvent(
        id=envelope.id, kind=EventKind.ACCEPTED, at=envelope.accepted_at, service="ingress-anon", fields=told | fields
    )


async def balanced(database: Database) -> dict[str, int]:
    books = total(balances(*await LedgerRepository(database).totals(None)).values()).model_dump()
    assert books["accepted"] == sum(number for name, number in books.items() if name != "accepted")
    return books


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_order_and_however_often_the_same_is_recorded(database: Database, seed: int) -> None:
    trace = TraceRepository(database)
    envelope = an_envelope("a@relay.example", "b@relay.example")
    start = datetime.now(UTC)
    ends = (
        [an_end(envelope, DispositionKind.HELD, n, 0, at=start) for n in (0, 1)]
        + [an_end(envelope, DispositionKind.RELEASED, n, 1, at=start + timedelta(seconds=1)) for n in (0, 1)]
        + [
            an_end(envelope, DispositionKind.DELIVERED, 0, 1, at=start + timedelta(seconds=2), next_hop="h:25", reply="250 ok\0"),
            an_end(envelope, DispositionKind.BOUNCED, 1, 1, at=start + timedelta(seconds=2), successor_id="ndr"),
        ]
    )
    told = [
        accepted(envelope),
        TraceEvent(id=envelope.id, kind=EventKind.SCREENED, at=start, service="screener", fields={"part": "1\0"}),
    ]
    items: list[TraceEvent | Disposition] = [*told, *ends] * 2
    random.Random(seed).shuffle(items)
    for batch in (
        itertools.batched(items, 3) if hasattr(itertools, "batched") else (items[k : k + 3] for k in range(0, len(items), 3))
    ):
        await trace.record(
            [each for each in batch if isinstance(each, TraceEvent)], [each for each in batch if isinstance(each, Disposition)]
        )
    found = await trace.trace(envelope.id)
    assert [(end.recipient, end.kind, end.generation) for end in found.dispositions] == [
        ("a@relay.example", "delivered", 1),
        ("b@relay.example", "bounced", 1),
    ]
    assert [event.kind for event in found.events] == ["accepted", "screened"]
    assert len(found.history) == 6
    assert found.message is not None
    assert (found.message.final, found.message.is_open, found.message.reverse_path) == (2, False, "x@sender.example")
    books = await balanced(database)
    assert (books["accepted"], books["delivered"], books["bounced"], books["in_flight"]) == (2, 1, 1, 0)


async def test_a_late_held_does_not_undo_a_release(database: Database) -> None:
    trace, envelope = TraceRepository(database), an_envelope()
    await trace.record([], [an_end(envelope, DispositionKind.RELEASED, generation=1)])
    await trace.record([], [an_end(envelope, DispositionKind.HELD, at=datetime.now(UTC) + timedelta(minutes=1))])
    assert [end.kind for end in (await trace.trace(envelope.id)).dispositions] == ["released"]
    books = await balanced(database)
    assert (books["held"], books["in_flight"]) == (0, 1)


async def test_the_ledger_balances_and_names_what_is_open_too_long(database: Database) -> None:
    trace, ledger = TraceRepository(database), LedgerRepository(database)
    kinds = [kind for kind in DispositionKind if kind.is_final]
    ended = [an_envelope("a@relay.example", "b@relay.example") for _ in kinds]
    waiting, lost_event = an_envelope("c@relay.example", gate=Gate.AUTH), an_envelope("a@relay.example", "b@relay.example")
    await trace.record(
        [accepted(envelope) for envelope in [*ended, waiting]],
        [an_end(envelope, kind, n) for envelope, kind in zip(ended, kinds, strict=True) for n in (0, 1)]
        + [an_end(lost_event, DispositionKind.DELIVERED, 0)],  # its `accepted` was never told
    )
    books = balances(*await ledger.totals(None))
    assert books["auth"].model_dump(exclude_defaults=True) == {"accepted": 1, "in_flight": 1}
    assert books["anon"].accepted == 2 * len(kinds) + 2
    assert books["anon"].in_flight == 1
    assert (await balanced(database))["held"] == 2
    count, ids = await ledger.open_since(datetime.now(UTC) + timedelta(seconds=1), 10)
    assert (count, set(ids)) == (2, {waiting.id, lost_event.id})
    assert await ledger.open_since(datetime.now(UTC) - timedelta(hours=1), 10) == (0, [])
    assert balances(*await ledger.totals(datetime.now(UTC) + timedelta(hours=1))) == {}


async def test_the_books_of_an_hour_are_about_the_mail_that_it_accepted(database: Database) -> None:
    trace, ledger = TraceRepository(database), LedgerRepository(database)
    hour = datetime(2026, 3, 1, 23, tzinfo=UTC)
    last_moment, midnight = hour + timedelta(hours=1, microseconds=-1), hour + timedelta(hours=1)

    def told(at: datetime, gate: Gate = Gate.ANON, *recipients: str) -> tuple[Envelope, TraceEvent]:
        envelope = an_envelope(*recipients, gate=gate)
        event = accepted(envelope)
        return envelope, TraceEvent(id=event.id, kind=event.kind, at=at, service=event.service, fields=event.fields)

    first, last = told(hour, Gate.ANON, "a@relay.example", "b@relay.example"), told(last_moment)
    ours, next_day = told(hour, Gate.AUTH), told(midnight)
    await trace.record(
        [event for _, event in (first, last, ours, next_day)],
        # whenever it ends, it ends in the hour of its acceptance
        [
            an_end(first[0], DispositionKind.DELIVERED),
            an_end(first[0], DispositionKind.HELD, 1, at=midnight),
            an_end(last[0], DispositionKind.BOUNCED, at=midnight + timedelta(days=2)),
        ],
    )
    found = balances(*await ledger.hours(hour, midnight + timedelta(hours=1)))
    assert [(key, book.model_dump(exclude_defaults=True)) for key, book in found.items()] == [
        ((hour, "anon"), {"accepted": 3, "delivered": 1, "bounced": 1, "held": 1}),
        ((hour, "auth"), {"accepted": 1, "in_flight": 1}),
        ((midnight, "anon"), {"accepted": 1, "in_flight": 1}),
    ]
    assert total(found.values()) == total(balances(*await ledger.totals(None)).values())
    assert list(balances(*await ledger.hours(midnight, midnight + timedelta(hours=1)))) == [(midnight, "anon")]
    assert balances(*await ledger.hours(hour - timedelta(hours=1), hour)) == {}


async def test_the_ledger_is_walked_in_pages(database: Database) -> None:
    trace, ledger = TraceRepository(database), LedgerRepository(database)
    envelopes = [an_envelope("a@relay.example", "b@relay.example") for _ in range(6)]
    kinds = [DispositionKind.DELIVERED, DispositionKind.HELD, DispositionKind.BADMAIL]
    both = [an_end(envelope, kind, n, route="r") for envelope, kind in zip(envelopes, kinds, strict=False) for n in (0, 1)]
    await trace.record(
        [accepted(envelope) for envelope in envelopes], [*both, an_end(envelopes[3], DispositionKind.RELEASED, 1, generation=1)]
    )
    open_ids: list[str] = []
    while page := await ledger.unfinished(after=open_ids[-1] if open_ids else "", limit=2):
        assert len(page) <= 2
        assert {(row.recipients, row.ended) for row in page} == {(2, 0)}
        open_ids += [row.id for row in page]
    assert open_ids == sorted(envelope.id for envelope in envelopes[3:])
    assert await ledger.unfinished_count() == 3
    standings: list[tuple[str, int]] = []
    found = set()
    while some := await ledger.standings(after=standings[-1] if standings else ("", -1), limit=2):
        standings += [(each.queue_id, each.n) for each in some]
        found |= {(each.job_id, each.kind) for each in some}
    assert standings == sorted([(envelope.id, n) for envelope in envelopes[1:3] for n in (0, 1)] + [(envelopes[3].id, 1)])
    assert found == {
        (f"{envelopes[1].id}-r-0", "held"),
        (f"{envelopes[2].id}-r-0", "badmail"),
        (f"{envelopes[3].id}--1", "released"),
    }
    assert await ledger.known([envelopes[0].id, "nobody"]) == {envelopes[0].id}
    assert await ledger.newest_event_at() is not None


async def test_what_postern_wrote_itself_is_known_by_the_disposition_that_names_it(database: Database) -> None:
    """Was: a copy that a rule forwards was in nobody's books until it had come to its end."""
    trace, ledger = TraceRepository(database), LedgerRepository(database)
    original, copy = an_envelope("a@relay.example", "b@relay.example"), an_envelope(gate=Gate.INTERNAL)
    forwarded = [an_end(original, DispositionKind.FORWARDED, n, successor_id=copy.id) for n in (0, 1)]
    await trace.record([accepted(original)], forwarded)
    assert {
        row.id: (row.gate, row.recipients_total, row.is_open) for row in await trace.page(after="", limit=10, open_only=False)
    } == {
        original.id: ("anon", 2, False),
        copy.id: ("internal", 1, True),
    }
    books = balances(*await ledger.totals(None))
    assert books["internal"].model_dump(exclude_defaults=True) == {"accepted": 1, "in_flight": 1}
    await trace.record([], [an_end(copy, DispositionKind.DELIVERED), *forwarded])
    assert (await balanced(database))["in_flight"] == 0
    assert [row.size_bytes for row in await trace.page(after="", limit=10, open_only=False) if row.id == copy.id] == [None]
    await trace.record([accepted(copy)], [])  # told of late
    assert [row.size_bytes for row in await trace.page(after="", limit=10, open_only=False) if row.id == copy.id] != [None]
    await trace.record([], [an_end(original, DispositionKind.BOUNCED, successor_id="no queue id")])
    assert len(await trace.page(after="", limit=10, open_only=False)) == 2


async def test_a_message_whose_acceptance_was_never_told_is_known_by_its_next_step(database: Database) -> None:
    """Was: after a gate died, its last messages were in nobody's books while they waited, and none of them could be open for too long."""
    trace, ledger = TraceRepository(database), LedgerRepository(database)
    envelope = an_envelope("a@relay.example", "b@relay.example")
    step = TraceEvent(id=envelope.id, kind=EventKind.DEFERRED, at=datetime.now(UTC), service="delivery", fields={"attempts": 1})
    for _ in range(2):
        await trace.record([step], [])
        books = balances(*await ledger.totals(None))
        assert {gate: book.model_dump(exclude_defaults=True) for gate, book in books.items()} == {
            "": {"accepted": 1, "in_flight": 1}
        }
    assert await ledger.open_since(datetime.now(UTC) + timedelta(seconds=1), 10) == (1, [envelope.id])
    (row,) = await trace.page(after="", limit=10, open_only=True)
    assert (row.accepted_at, row.recipients_total) == (envelope.accepted_at, None)
    await trace.record([step], [an_end(envelope, DispositionKind.DELIVERED, 0)])
    assert balances(*await ledger.totals(None))["anon"].model_dump(exclude_defaults=True) == {
        "accepted": 2,
        "delivered": 1,
        "in_flight": 1,
    }


async def test_messages_are_found_by_sender_recipient_and_disposition(database: Database) -> None:
    trace = TraceRepository(database)
    one, two, open_one = an_envelope("a@relay.example"), an_envelope("B_b@relay.example"), an_envelope("c@relay.example")
    await trace.record(
        [accepted(one), accepted(two, reverse_path="Other@Else.example"), accepted(open_one)],
        [an_end(one, DispositionKind.DELIVERED), an_end(two, DispositionKind.HELD)],
    )

    async def ids(**filters: object) -> list[str]:
        wanted: dict[str, object] = {"after": "", "limit": 10, "open_only": False} | filters
        return [row.id for row in await trace.page(**wanted)]  # type: ignore[arg-type]

    newest_first = sorted((one.id, two.id, open_one.id), reverse=True)
    assert await ids() == newest_first
    assert await ids(limit=2) == newest_first[:2]
    assert await ids(after=newest_first[1]) == newest_first[2:]
    assert await ids(sender="other@") == [two.id]
    assert await ids(recipient="b_B@") == [two.id]
    assert await ids(recipient="bxb@") == []  # no wildcard of the database
    assert await ids(kind=DispositionKind.DELIVERED) == [one.id]
    assert await ids(open_only=True) == [open_one.id]


async def test_pruning_spares_what_is_open_held_or_badmail(database: Database) -> None:
    trace = TraceRepository(database)
    settled, held, bad, waiting = an_envelope(), an_envelope(), an_envelope(), an_envelope()
    await trace.record(
        [accepted(settled), accepted(held), accepted(bad), accepted(waiting)],
        [
            an_end(settled, DispositionKind.DELIVERED),
            an_end(held, DispositionKind.HELD),
            # was forgotten, and the stream has it for ever: the books did not balance any more
            an_end(bad, DispositionKind.BADMAIL),
        ],
    )
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert await trace.prune(datetime.now(UTC) - timedelta(days=1), 100) == 0
    assert await trace.prune(later, 100) == 1
    assert {row.id for row in await trace.page(after="", limit=10, open_only=False)} == {held.id, bad.id, waiting.id}
    gone = await trace.trace(settled.id)
    assert (gone.message, gone.events, gone.dispositions) == (None, [], [])


async def test_mail_released_after_long_keeps_its_trace_for_its_days(database: Database) -> None:
    trace, now = TraceRepository(database), datetime.now(UTC)
    ended = an_envelope()
    told = accepted(ended)
    old = TraceEvent(id=told.id, kind=told.kind, at=now - timedelta(days=60), service=told.service, fields=told.fields)
    await trace.record([old], [])
    await trace.record([], [an_end(ended, DispositionKind.DELIVERED, generation=1, at=now - timedelta(hours=1))])
    assert await trace.prune(now - timedelta(days=30), 100) == 0
    assert (await trace.trace(ended.id)).dispositions != []
    assert await trace.prune(now, 100) == 1


async def test_the_quarantine_index_is_searched_and_paged(database: Database) -> None:
    index = QuarantineIndex(database)
    held = [a_held_message(an_envelope(f"r{k}@relay.example")) for k in range(5)]
    rows = [index_row(message, sequence) for sequence, message in enumerate(held, 1)]
    await index.put(rows)
    await index.put(rows[:2])
    assert await index.extent() == (5, 5)
    newest_first = sorted((row.queue_id for row in rows), reverse=True)
    page, count = await index.page(after="", limit=2, sender="SENDER.example")
    assert ([row.queue_id for row in page], count) == (newest_first[:2], 5)
    page, count = await index.page(after=newest_first[1], limit=10)
    assert [row.queue_id for row in page] == newest_first[2:]
    page, count = await index.page(after="", limit=10, recipient="r3@", subject="held", reason="rule", rule_id="r-1")
    assert page == [rows[3]]
    assert count == 1
    await index.remove(row.queue_id for row in rows[1:])
    assert await index.ids() == {rows[0].queue_id}


async def test_writers_wait_for_one_another(database: Database) -> None:
    audit = AuditRepository(database)
    await asyncio.gather(*(audit.begin(f"actor {k}", "act", "target") for k in range(20)))
    assert len(await audit.page(before=None, limit=100)) == 20
