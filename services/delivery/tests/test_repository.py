"""The retry queue's table, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import event, func, make_url, select, text
from structlog.testing import capture_logs

from postern_core.control import QueueAction
from postern_core.envelope import Recipient
from postern_core.ids import new_queue_id
from postern_delivery.outcome import Fate, RecipientResult, retry_all
from postern_delivery.store import migrations
from postern_delivery.store.database import Database, DatabaseAway
from postern_delivery.store.migrating import migrate
from postern_delivery.store.models import metadata, queue
from postern_delivery.store.repository import FROZEN, REMOVE, WAITING, QueuedJob, QueueRepository, matching, on_route

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def a_row(**changes: object) -> QueuedJob:
    queue_id = new_queue_id()
    recipients = (Recipient(n=0, address="a@relay.example", notify="DELAY"), Recipient(n=1, address="b@relay.example"))
    row = QueuedJob(
        job_id=f"{queue_id}-default-0",
        queue_id=queue_id,
        route="default",
        reverse_path="me@sender.example",
        results=retry_all(recipients, NOW, text="busy", code=451, status="4.2.1", next_hop="h:25"),
        attempts=1,
        accepted_at=NOW,
        queued_at=NOW,
        next_attempt_at=NOW,
        expires_at=NOW + 100 * SECOND,
        size_bytes=5,
        last_reply="451 4.2.1 busy",
    )
    return replace(row, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(make_url(database_url))
    await migrate(opened)
    yield opened
    await opened.close()


@pytest.fixture
def repository(database: Database) -> QueueRepository:
    return QueueRepository(database)


async def test_migrations_make_what_the_models_say(database: Database) -> None:
    async with database.read() as connection:
        differences = await connection.run_sync(lambda sync: compare_metadata(MigrationContext.configure(sync), metadata))
    assert differences == []


async def test_a_page_and_its_count_are_of_one_moment(database: Database, repository: QueueRepository) -> None:
    counted = select(func.count()).select_from(queue)
    async with database.read() as connection:
        before = (await connection.execute(counted)).scalar_one()
        assert await repository.insert(a_row())
        assert (await connection.execute(counted)).scalar_one() == before
    async with database.read() as connection:
        assert (await connection.execute(counted)).scalar_one() == before + 1


async def test_postgresql_that_does_not_sync_is_told_of(postgres_url: str) -> None:
    database = Database(make_url(postgres_url))
    async with database.read() as connection:
        assert (await connection.execute(text("SHOW synchronous_commit"))).scalar() == "on"
        fsync = (await connection.execute(text("SHOW fsync"))).scalar()
    with capture_logs() as told:
        await migrate(database)
    assert ("database.does_not_sync" in {line["event"] for line in told}) is (fsync != "on")
    await database.close()


async def test_replicas_that_start_at_once_migrate_once(database_url: str) -> None:
    replicas = [Database(make_url(database_url)) for _ in range(3)]
    await asyncio.gather(*(migrate(replica) for replica in replicas))
    assert await QueueRepository(replicas[0]).job_ids() == set()
    for replica in replicas:
        await replica.close()


async def test_a_replica_waits_for_another_one_that_writes_the_first_tables(tmp_path: Path) -> None:
    """Was: "database is locked" at once, since SQLite's own patience does not cover the step to WAL."""
    path = tmp_path / "queue.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    database = Database(make_url(f"sqlite+aiosqlite:///{path}"))
    starting = asyncio.create_task(migrate(database))
    await asyncio.wait({starting}, timeout=0.3)
    other.execute("COMMIT")
    other.close()
    await starting
    await database.close()


async def test_a_row_comes_back_as_it_was(repository: QueueRepository) -> None:
    row = a_row()
    assert await repository.insert(row)
    assert await repository.get(row.job_id) == row
    assert not await repository.insert(replace(row, attempts=7))
    assert await repository.get(row.job_id) == row
    assert await repository.delete(row.job_id)
    assert await repository.get(row.job_id) is None


async def test_only_due_rows_are_leased_and_only_once(repository: QueueRepository) -> None:
    due, later, frozen = a_row(), a_row(next_attempt_at=NOW + SECOND), a_row(state=FROZEN)
    for row in (due, later, frozen):
        await repository.insert(row)
    assert await repository.routes_due(NOW) == ["default"]
    until = NOW + 10 * SECOND
    [leased] = await repository.lease("default", 10, owner="me", now=NOW, until=until)
    assert leased == replace(due, lease_owner="me", lease_until=until)
    assert await repository.lease("default", 10, owner="you", now=NOW, until=until) == []
    assert await repository.next_due() == later.next_attempt_at
    assert await repository.next_due(excluding={"default"}) is None


async def test_the_longest_waiting_come_first_and_no_more_than_asked_for(repository: QueueRepository) -> None:
    rows = [a_row(next_attempt_at=NOW - n * SECOND) for n in range(5)]
    for row in rows:
        await repository.insert(row)
    leased = await repository.lease("default", 2, owner="me", now=NOW, until=NOW + SECOND)
    assert [row.job_id for row in leased] == [rows[4].job_id, rows[3].job_id]


async def test_many_workers_never_share_a_row(database_url: str, repository: QueueRepository) -> None:
    rows = [a_row() for _ in range(40)]
    for row in rows:
        await repository.insert(row)
    replicas = [Database(make_url(database_url)) for _ in range(4)]

    async def work(replica: Database, owner: str) -> list[str]:
        mine: list[str] = []
        while leased := await QueueRepository(replica).lease("default", 3, owner=owner, now=NOW, until=NOW + SECOND):
            mine += [row.job_id for row in leased]
        return mine

    taken = await asyncio.gather(*(work(replica, str(n)) for n, replica in enumerate(replicas)))
    assert sorted(job_id for mine in taken for job_id in mine) == sorted(row.job_id for row in rows)
    for replica in replicas:
        await replica.close()


async def test_a_lease_runs_out_and_its_late_owner_changes_nothing(repository: QueueRepository) -> None:
    row = a_row()
    await repository.insert(row)
    [first] = await repository.lease("default", 1, owner="dead", now=NOW, until=NOW + SECOND)
    assert await repository.next_due() == NOW + SECOND
    [second] = await repository.lease("default", 1, owner="alive", now=NOW + SECOND, until=NOW + 9 * SECOND)
    assert second.job_id == row.job_id
    assert not await repository.postpone(replace(first, attempts=9), owner="dead")
    assert not await repository.renew(row.job_id, owner="dead", until=NOW + 99 * SECOND)
    assert not await repository.give_back(row.job_id, owner="dead")
    assert await repository.renew(row.job_id, owner="alive", until=NOW + 20 * SECOND)


async def test_progress_is_kept_for_each_recipient(repository: QueueRepository) -> None:
    row = a_row()
    await repository.insert(row)
    [leased] = await repository.lease("default", 1, owner="me", now=NOW, until=NOW + SECOND)
    delivered = RecipientResult(recipient=row.results[0].recipient, fate=Fate.DELIVERED, at=NOW, code=250)
    changed = replace(
        leased, results=(delivered, row.results[1]), attempts=2, next_attempt_at=NOW + 60 * SECOND, delay_notified=True
    )
    assert await repository.postpone(changed, owner="me")
    kept = await repository.get(row.job_id)
    assert kept == replace(changed, lease_owner="", lease_until=None)
    assert [result.recipient.n for result in kept.open_results] == [1]


async def test_an_administrator_s_changes(repository: QueueRepository) -> None:
    row, other = a_row(next_attempt_at=NOW + 60 * SECOND), a_row(route="other", next_attempt_at=NOW + 60 * SECOND)
    for each in (row, other):
        await repository.insert(each)
    mine = matching(QueueAction(queue_id=row.queue_id))
    assert await repository.retry_now(mine, NOW) == 1
    assert await repository.next_due() == NOW
    assert await repository.hold(mine) == 1
    assert await repository.hold(mine) == 0
    assert await repository.retry_now(mine, NOW) == 0
    assert await repository.routes_due(NOW) == []
    assert await repository.resume(matching(QueueAction(job_id=row.job_id))) == 1
    assert await repository.routes_due(NOW) == ["default"]
    assert await repository.remove(matching(QueueAction(route="other")), with_ndr=False, actor="admin") == 1
    assert sorted(await repository.routes_due(NOW)) == ["default", "other"]
    [removed] = await repository.lease("other", 9, owner="me", now=NOW, until=NOW + SECOND)
    assert (removed.removal, removed.removal_actor) == (REMOVE, "admin")
    assert await repository.hold(matching(QueueAction())) == 2


async def test_what_an_administrator_does_during_an_attempt_survives_it(repository: QueueRepository) -> None:
    row = a_row()
    await repository.insert(row)
    [leased] = await repository.lease("default", 1, owner="me", now=NOW, until=NOW + SECOND)
    await repository.hold(matching(QueueAction()))
    await repository.postpone(replace(leased, attempts=2), owner="me")
    kept = await repository.get(row.job_id)
    assert kept is not None
    assert (kept.state, kept.attempts) == (FROZEN, 2)


async def test_pages(repository: QueueRepository) -> None:
    rows = sorted((a_row() for _ in range(5)), key=lambda row: row.job_id)
    for row in rows:
        await repository.insert(row)
    page, total = await repository.page(on_route(""), after="", limit=2)
    assert (page, total) == (rows[:2], 5)
    page, _ = await repository.page(on_route("default"), after=page[-1].job_id, limit=9)
    assert page == rows[2:]
    assert await repository.page(on_route("none"), after="", limit=9) == ([], 0)


@pytest.mark.parametrize(
    "url", ["postgresql+asyncpg://nobody@127.0.0.1:1/queue", "sqlite+aiosqlite:////proc/no/such/folder/queue.db"]
)
async def test_a_database_that_is_away_says_so(url: str) -> None:
    with pytest.raises(DatabaseAway):
        await migrate(Database(make_url(url)))


@pytest.mark.parametrize("error", [asyncpg.InternalClientError, asyncpg.InterfaceError, asyncpg.PostgresError])
async def test_what_the_driver_raises_past_sqlalchemy_is_a_database_that_is_away(
    postgres_url: str, error: type[Exception]
) -> None:
    """Was: `cannot switch to state 11; another operation (2) is in progress`, of a server that went away, ended the service."""
    database = Database(make_url(postgres_url))
    for opened in (database.read, database.write):
        with pytest.raises(DatabaseAway, match="cannot switch"):
            async with opened():
                raise error("cannot switch to state 11")
    await database.close()


async def test_the_first_version_s_rows_are_brought_along(tmp_path: Path) -> None:
    """Rows that were written before `due_at` was a column are due when they were."""
    database = Database(make_url(f"sqlite+aiosqlite:///{tmp_path / 'queue.db'}"))
    try:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__path__[0])))
        async with database.write() as connection:
            config.attributes["connection"] = connection.sync_connection
            await connection.run_sync(lambda _: command.upgrade(config, "0001"))
        repository, row = QueueRepository(database), a_row()
        await repository.insert(row)
        await migrate(database)
        assert await repository.next_due() == row.next_attempt_at
        assert await repository.get(row.job_id) == row
    finally:
        await database.close()


async def test_what_is_due_is_found_by_the_index(tmp_path: Path) -> None:
    """With a hundred thousand rows in wait a look took a tenth of a second, and a lease as long: both went past every row."""
    database = Database(make_url(f"sqlite+aiosqlite:///{tmp_path / 'queue.db'}"))
    try:
        await migrate(database)
        asked: list[str] = []
        event.listen(database._opened().sync_engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
        repository = QueueRepository(database)
        await repository.next_due()
        await repository.lease("default", 10, owner="a", now=NOW, until=NOW + SECOND)
        looks = [statement for statement in asked if "queue" in statement]
        assert len(looks) == 2
        async with database.read() as connection:
            for look in looks:
                parameters = tuple([NOW.isoformat()] * look.count("?"))
                plan = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {look}", parameters)).all()
                steps = [str(row[3]) for row in plan]
                assert [step for step in steps if "ix_queue_due" in step], steps
                assert not [step for step in steps if step == "SCAN queue" or "TEMP B-TREE" in step], steps
    finally:
        await database.close()


async def test_the_queues_sizes_are_by_route_and_state(repository: QueueRepository) -> None:
    assert await repository.sizes() == {}
    for route, state in (("main", WAITING), ("main", WAITING), ("main", FROZEN), ("far", FROZEN)):
        assert await repository.insert(a_row(route=route, state=state))
    # one that is being worked on waits still
    leased = await repository.lease("main", 1, owner="me", now=NOW, until=NOW + 60 * SECOND)
    assert len(leased) == 1
    assert await repository.sizes() == {("main", WAITING): 2, ("main", FROZEN): 1, ("far", FROZEN): 1}
