"""Curve `deferred`: what the retry loop's statements cost with n rows in the queue database, and how long n due rows would take to work through.

The table is filled by delivery's own statements, many rows a transaction; only what the loop does is measured: `RetryLoop` looks
(`routes_due`, `next_due`), leases and postpones by these methods. No mail is sent, so that the database is all there is to see.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert, make_url, text, update

from bench.growth import Curve, Point
from fixtures.postgres import Postgres, postgres_binaries
from postern_core.envelope import Recipient
from postern_core.ids import new_queue_id
from postern_delivery.outcome import retry_all
from postern_delivery.settings import Settings
from postern_delivery.store.database import Database
from postern_delivery.store.migrating import migrate
from postern_delivery.store.models import queue
from postern_delivery.store.repository import QueuedJob, QueueRepository, _values, on_route

ROWS = (1000, 10_000, 100_000, 1_000_000)
_AT_ONCE: int = Settings.model_fields["retry_concurrency"].default  # rows that one round leases
_FILL = 5000
_ROUNDS = 20
_PAGE = 100
_AN_HOUR = timedelta(hours=1)


def deferred_curves(sizes: Sequence[int] = ROWS, *, below: Path, rounds: int = _ROUNDS) -> Iterator[Curve]:
    """The curves on SQLite, and on PostgreSQL where this machine has its server (a fresh one, which does not sync: see `fixtures.postgres`)."""
    with tempfile.TemporaryDirectory(prefix="postern-rows-", dir=below) as directory:
        yield from asyncio.run(_measured("SQLite", f"sqlite+aiosqlite:///{directory}/queue.db", sizes, rounds))
    if (binaries := postgres_binaries()) is not None:
        server = Postgres(binaries)
        try:
            server.start()
            yield from asyncio.run(_measured("PostgreSQL", server.create_database(), sizes, rounds))
        finally:
            server.stop()


async def _measured(name: str, url: str, sizes: Sequence[int], rounds: int) -> list[Curve]:
    database = Database(make_url(url))
    repository = QueueRepository(database)
    looks, drains, pages = [], [], []
    firsts: list[str] = []  # the first job id of each portion
    try:
        await migrate(database)
        filled = 0
        for size in sizes:
            firsts += await _fill(database, size - filled)
            filled = size
            # nothing is due: what the loop asks at least every five seconds
            await _set_next_attempt(database, firsts, datetime.now(UTC) + _AN_HOUR)
            look_ms = await _median_ms(rounds, lambda: _look(repository))
            looks.append(Point(size, look_ms, f"{look_ms:.2f} ms"))
            page_ms = await _median_ms(rounds, lambda: repository.page(on_route("default"), after="", limit=_PAGE))
            pages.append(Point(size, page_ms, f"{page_ms:.2f} ms"))
            # all of them are: a smart host is back after a long outage
            await _set_next_attempt(database, firsts, datetime.now(UTC) - _AN_HOUR)
            round_ms = await _median_ms(min(rounds, size // _AT_ONCE - 1), lambda: _round(repository))  # one more goes before
            told = f"{round_ms:.2f} ms a round of {_AT_ONCE}, {_AT_ONCE / round_ms * 1000:.0f} rows/s"
            drains.append(Point(size, size / _AT_ONCE * round_ms / 1000, told))
    finally:
        await database.close()
    return [
        Curve(name=f"deferred, nothing due ({name})", n_is="rows", cost_is="ms for one look of the retry loop", points=looks),
        Curve(name=f"deferred, a page ({name})", n_is="rows", cost_is=f"ms to list {_PAGE} rows and count all", points=pages),
        Curve(name=f"deferred, all due ({name})", n_is="rows", cost_is="s of database work to try each row once", points=drains),
    ]


async def _look(repository: QueueRepository) -> None:
    assert await repository.routes_due(datetime.now(UTC)) == []
    assert await repository.next_due() is not None


async def _round(repository: QueueRepository) -> None:
    """As `RetryLoop` does it, each attempt ending in another deferral."""
    now = datetime.now(UTC)
    (route,) = await repository.routes_due(now)
    rows = await repository.lease(route, _AT_ONCE, owner="bench", now=now, until=now + timedelta(minutes=1))
    assert len(rows) == _AT_ONCE, f"{len(rows)} rows leased"
    later = now + _AN_HOUR
    for row in rows:
        assert await repository.postpone(replace(row, attempts=row.attempts + 1, next_attempt_at=later), owner="bench")
    await repository.next_due()


async def _median_ms(times: int, step: Callable[[], Awaitable[object]]) -> float:
    await step()  # the first one opens connections and fills caches
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        await step()
        took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)


async def _fill(database: Database, count: int) -> list[str]:
    """Add so many rows, in portions; returns the first job id of each."""
    template = _a_row()
    firsts = []
    for start in range(0, count, _FILL):
        rows = []
        for _ in range(min(_FILL, count - start)):
            queue_id = new_queue_id()
            rows.append(template | {"job_id": f"{queue_id}-default-0", "queue_id": queue_id})
        async with database.write() as connection:
            await connection.execute(insert(queue), rows)
        firsts.append(str(min(row["job_id"] for row in rows)))
    return firsts


async def _set_next_attempt(database: Database, firsts: Sequence[str], at: datetime) -> None:
    """Of every row, and the statistics anew, as an automatic vacuum does it in time. In portions: a statement has 30 seconds (`Database`)."""
    for first, behind in itertools.pairwise([*firsts, "~"]):
        portion = queue.c.job_id.between(first, behind)
        async with database.write() as connection:
            await connection.execute(update(queue).where(portion).values(next_attempt_at=at, lease_until=None, lease_owner=""))
    async with database.write() as connection:
        await connection.execute(text("ANALYZE" if database.is_sqlite else "ANALYZE queue"))


def _a_row() -> dict[str, object]:
    now = datetime.now(UTC)
    recipients = (Recipient(n=0, address="recipient@relay.example"),)
    return _values(
        QueuedJob(
            job_id="",
            queue_id="",
            route="default",
            reverse_path="sender@origin.example",
            results=retry_all(
                recipients, now, text="4.3.2 try again later", code=451, status="4.3.2", next_hop="smart-host.example:25"
            ),
            attempts=1,
            accepted_at=now,
            queued_at=now,
            next_attempt_at=now,
            expires_at=now + timedelta(days=5),
            size_bytes=6000,
            last_reply="451 4.3.2 try again later",
        )
    )
