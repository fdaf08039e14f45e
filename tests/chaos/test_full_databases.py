"""The disk of the databases is full, SQLite's or PostgreSQL's: mail goes on, what must wait waits in the stream, and settles when there is room."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from chaos.without_database import LATER, NOW, mail_goes_on
from fixtures.machine import lacking
from fixtures.mail import a_message
from fixtures.postgres import Postgres, postgres_binaries
from fixtures.postgres_faults import end_for_want_of_log, launch_again
from fixtures.postgres_relay import PostgresRelay
from fixtures.relay import Relay
from fixtures.small_disk import MIB, filled, small_disk

DATABASES = ("queue.db", "control.db")
SERVICES = ("delivery", "api")


@contextmanager
def full_and_nothing_to_write_over(disk: Path) -> Iterator[None]:
    """SQLite writes over what its log held, without a byte of the disk: the log is emptied first."""
    for name in DATABASES:
        with closing(sqlite3.connect(disk / name)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with filled(disk):
        yield


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_disk(tmp_path_factory.mktemp("disk"), 24 * MIB) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def relay(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Its databases are on `disk`, and nothing else of it is."""
    state = tmp_path_factory.mktemp("relay") / "var"
    state.mkdir()
    for name in DATABASES:
        (state / name).symlink_to(disk / name)
    with Relay(state) as running:
        running.set_schedule(1)
        yield running


def test_a_full_disk_under_sqlite(relay: Relay, disk: Path) -> None:
    logs = {service: relay.state / "logs" / f"{service}.log" for service in SERVICES}
    monitor = json.loads((relay.state / "addresses.json").read_text())["monitor"]
    mail_goes_on(relay, full_and_nothing_to_write_over(disk), logs=logs, monitor_url=f"http://{monitor}")


def test_services_that_start_on_a_full_disk_do_their_work_when_there_is_room(relay: Relay, disk: Path) -> None:
    with relay.recipient_deferred(LATER):
        before = relay.send(a_message(), to=[LATER])
        relay.wait_queued(before)
        with full_and_nothing_to_write_over(disk):
            relay.kill(*SERVICES)
            sent = [relay.send(a_message(), to=[NOW, LATER]) for _ in range(10)]
            for queue_id in sent:
                relay.received(queue_id)
    assert relay.wait_dispositions(before, "delivered") == {LATER: "delivered"}
    for queue_id in sent:
        assert relay.dispositions(queue_id) == {NOW: "delivered", LATER: "delivered"}
    assert relay.wait_balanced()["in_flight"] == 0


@contextmanager
def full_for_tables(_: Postgres, disk: Path) -> Iterator[None]:
    """What would make a table longer fails; the server goes on."""
    with filled(disk):
        yield


@contextmanager
def full_for_its_log(postgres: Postgres, disk: Path) -> Iterator[None]:
    """The server cannot go on without another segment of its log, nor recover: it ends, and is started again when there is room."""
    try:
        with filled(disk):
            end_for_want_of_log(postgres)
            yield
    finally:
        launch_again(postgres)


@pytest.mark.parametrize("full", [full_for_tables, full_for_its_log])
def test_a_full_disk_under_postgresql(tmp_path: Path, full: Callable[[Postgres, Path], AbstractContextManager[None]]) -> None:
    binaries = postgres_binaries() or lacking("PostgreSQL's server binaries (Debian: postgresql)")
    # not below pytest's folder: that is closed to the user that the server runs as
    with tempfile.TemporaryDirectory(prefix="postern-disk-") as folder, small_disk(Path(folder), 128 * MIB) as disk:
        postgres = Postgres(binaries, directory=disk / "postgres")
        postgres.directory.mkdir()
        try:
            postgres.start()
            with PostgresRelay(tmp_path / "var", postgres) as relay:
                relay.set_schedule(1)
                mail_goes_on(relay, full(postgres, disk), logs=relay.logs, monitor_url=relay.broker.monitor_url)
                assert relay.ended == {}
        finally:
            postgres.stop()
