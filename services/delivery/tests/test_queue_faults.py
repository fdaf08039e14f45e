"""The queue database misbehaves, or two replicas share it: mail at its first try goes on, and nothing is lost or sent twice."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
from sqlalchemy import make_url

from fixtures.smart_host import ReceivedMessage
from postern_core.bus.topology import DEFERRED
from postern_core.control import DeliveryVerb
from postern_core.envelope import Gate
from postern_core.policy import RetrySchedule
from postern_delivery import deferral
from postern_delivery.store.database import Database, DatabaseAway
from postern_delivery.store.migrating import HEAD, migrate
from postern_delivery.store.repository import QueuedJob, QueueRepository

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack

RARE = RetrySchedule(intervals_s=(3600,), delay_notice_s=None, expiry_s=7200)


@asynccontextmanager
async def administrator_of(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
        yield connection
    finally:
        await connection.close()


async def make_read_only(url: str, *, read_only: bool) -> None:
    """As after a failover to a standby, or with a disk that is full: connections stand, and every change is refused."""
    database = make_url(url).database
    async with administrator_of(url) as connection:
        change = "SET default_transaction_read_only = on" if read_only else "RESET default_transaction_read_only"
        await connection.execute(f'ALTER DATABASE "{database}" {change}')
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        await connection.execute(others, database)


async def test_a_database_that_takes_no_changes_holds_up_nothing_and_loses_nothing(idle_stack: Stack, postgres_url: str) -> None:
    stack = idle_stack
    stack.settings = stack.settings.model_copy(update={"database_url": postgres_url})
    await stack.start()
    stack.smart_host.defer_rcpt("before@relay.example")
    stack.smart_host.defer_rcpt("later@relay.example")
    before = await stack.send("before@relay.example")
    await stack.queued()
    await make_read_only(postgres_url, read_only=True)
    job = await stack.send("later@relay.example", "now@relay.example")
    await stack.holds(DEFERRED, 2)
    await stack.outbound_is_empty()
    end = await stack.end_of(job.queue_id, 1)
    assert end is not None
    assert end.kind == "delivered"
    with pytest.raises(RuntimeError, match="database"):
        await stack.change(DeliveryVerb.QUEUE_HOLD)
    await make_read_only(postgres_url, read_only=False)
    await stack.queued(2)
    stack.smart_host.behave()
    assert await stack.dispositions(before) == {"before@relay.example": "delivered"}
    assert await stack.dispositions(job) == {"later@relay.example": "delivered", "now@relay.example": "delivered"}
    copies = Counter(recipient for message in stack.smart_host.messages for recipient in message.recipients)
    assert copies == {"before@relay.example": 1, "later@relay.example": 1, "now@relay.example": 1}


async def test_a_database_that_hangs_does_not_keep_mail_from_being_deferred(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else holds the write lock of SQLite: what waits for it gives up long before the database does."""
    monkeypatch.setattr(deferral, "_INSERT_S", 0.2)
    locker = sqlite3.connect(str(make_url(stack.settings.database_url).database), isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    stack.smart_host.defer_rcpt("later@relay.example")
    jobs = [await stack.send("later@relay.example") for _ in range(3)]
    await stack.holds(DEFERRED, 3)
    await stack.outbound_is_empty()
    stack.smart_host.behave()
    assert stack.smart_host.messages == []
    locker.execute("ROLLBACK")
    locker.close()
    for job in jobs:
        assert await stack.dispositions(job, timeout=40) == {"later@relay.example": "delivered"}
    assert len(stack.smart_host.messages) == 3


async def test_a_database_of_a_newer_program_keeps_no_mail_from_its_first_try(idle_stack: Stack) -> None:
    """A downgrade: the queue waits for the program that knows its table, and delivery does not die of it."""
    stack = idle_stack
    path = Path(str(make_url(stack.settings.database_url).database))
    database = Database(stack.settings.database())
    await migrate(database)
    await database.close()
    with sqlite3.connect(path) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    newer.close()
    stack.expects_database = False
    await stack.start()
    assert await stack.dispositions(await stack.send("a@relay.example")) == {"a@relay.example": "delivered"}
    stack.smart_host.defer_rcpt("b@relay.example")
    waiting = await stack.send("b@relay.example")
    await stack.holds(DEFERRED, 1)
    await stack.outbound_is_empty()
    with sqlite3.connect(path) as known_again:
        known_again.execute(f"UPDATE alembic_version SET version_num = '{HEAD}'")
    known_again.close()
    stack.smart_host.behave()
    assert await stack.dispositions(waiting) == {"b@relay.example": "delivered"}


async def test_a_row_that_cannot_be_read_keeps_no_mail_from_its_first_try(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    await stack.smart_host.stop()
    job = await stack.send("a@relay.example")
    await stack.queued()
    await stack.outbound_is_empty()
    await stack.smart_host.start()
    with sqlite3.connect(str(make_url(stack.settings.database_url).database)) as spoiler:
        spoiler.execute("UPDATE queue SET results = '[{}]', next_attempt_at = accepted_at")
    spoiler.close()

    async def failed() -> bool:
        return not stack.delivery._has_database

    await stack.change(DeliveryVerb.QUEUE_RETRY)
    await stack.until(failed)
    assert await stack.dispositions(await stack.send("b@relay.example")) == {"b@relay.example": "delivered"}
    # the mail is in the stream: without the row it finds its way
    with sqlite3.connect(str(make_url(stack.settings.database_url).database)) as mender:
        mender.execute("DELETE FROM queue")
    mender.close()
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}


async def test_a_row_that_was_lost_does_not_start_the_clock_again(stack: Stack) -> None:
    """Also for mail whose clock began with its deferral: released from quarantine, or written by Postern itself."""
    await stack.set_policy(schedule=RARE)
    await stack.smart_host.stop()
    job = await stack.send("a@relay.example", generation=1, gate=Gate.ANON)
    await stack.queued()
    repository = QueueRepository(Database(stack.settings.database()))
    row = await repository.get(job.id)
    assert row is not None
    await repository.delete(job.id)
    restored: list[QueuedJob] = []

    async def made_again() -> bool:
        found = await repository.get(job.id)
        restored[:] = [found] if found else []
        return found is not None

    await stack.until(made_again)
    difference = restored[0].expires_at - row.expires_at
    assert abs(difference.total_seconds()) < 0.9  # a janitor's second look alone takes longer
    await repository._database.close()


async def test_two_replicas_share_a_queue_and_send_nothing_twice(idle_stack: Stack, postgres_url: str, tmp_path: Path) -> None:
    stack = idle_stack
    # few at once, so that neither takes all of it
    shared = {"database_url": postgres_url, "retry_concurrency": 2}
    stack.settings = stack.settings.model_copy(update=shared)
    other = type(stack)(stack.broker, stack.smart_host, tmp_path)
    other.settings = other.settings.model_copy(update=shared | {"instance": "other"})
    other.api, other.policy = await stack.broker.connect("api"), stack.policy
    recipients = [f"u{n}@relay.example" for n in range(30)]
    for recipient in recipients:
        stack.smart_host.defer_rcpt(recipient)
    await asyncio.gather(stack.start(), other.start())
    try:
        jobs = [await stack.send(recipient) for recipient in recipients]
        await stack.queued(len(recipients))
        stack.smart_host.behave()
        for job in jobs:
            assert set((await stack.dispositions(job, timeout=40)).values()) == {"delivered"}
        await stack.queued(0)
        await stack.holds(DEFERRED, 0)
    finally:
        await other.close()
    copies = Counter(recipient for message in stack.smart_host.messages for recipient in message.recipients)
    assert copies == dict.fromkeys(recipients, 1)


async def test_a_lease_that_ran_out_under_an_attempt_makes_no_second_one_in_the_same_replica(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was away for longer than a lease, while the smart host took its time to answer the final dot."""
    stack.smart_host.defer_rcpt("a@relay.example")
    job = await stack.send("a@relay.example")
    await stack.queued()
    reached, answer = asyncio.Event(), asyncio.Event()
    record = stack.smart_host.record

    async def slowly(message: ReceivedMessage) -> None:
        reached.set()
        await answer.wait()
        await record(message)

    async def away(*_: object, **__: object) -> bool:
        raise DatabaseAway("gone for a moment")

    monkeypatch.setattr(stack.smart_host, "record", slowly)
    monkeypatch.setattr(QueueRepository, "renew", away)
    stack.smart_host.behave()
    await reached.wait()
    repository = QueueRepository(Database(stack.settings.database()))
    first = await repository.get(job.id)
    assert first is not None

    async def leased_again() -> bool:
        row = await repository.get(job.id)
        return row is not None and row.lease_until != first.lease_until

    await stack.until(leased_again)
    answer.set()
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
    await stack.queued(0)
    await stack.holds(DEFERRED, 0)
    await stack.stop()
    assert len(stack.smart_host.messages) == 1
    await repository._database.close()


async def test_a_retry_that_the_broker_did_not_answer_is_repeated_soon_after_it_is_back(idle_stack: Stack) -> None:
    """Was: it kept its lease of a minute, as if its replica had died, and the mail waited for the end of that."""
    stack = idle_stack
    stack.settings = stack.settings.model_copy(update={"lease_s": 600.0})
    await stack.start()
    stack.smart_host.defer_rcpt("a@relay.example")
    job = await stack.send("a@relay.example")
    await stack.queued()
    database = Database(stack.settings.database())
    repository = QueueRepository(database)
    leases: list[datetime] = []  # by when they end, as they were seen

    async def given_up() -> bool:
        row = await repository.get(job.id)
        if row is not None and row.lease_until is not None:
            leases.append(row.lease_until)
        return len(leases) > 1 and leases[-1] < leases[0]

    assert stack.broker.process is not None
    stack.broker.process.send_signal(signal.SIGSTOP)
    try:
        await stack.until(given_up)
    finally:
        stack.broker.process.send_signal(signal.SIGCONT)
    stack.smart_host.behave()
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
    await database.close()
