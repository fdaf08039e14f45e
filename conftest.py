"""Fixtures for every part of the workspace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fixtures.broker import Broker
from fixtures.containers import PROJECT, build_image, engine_trouble, remove_image
from fixtures.dns_server import DnsServer
from fixtures.machine import lacking
from fixtures.postgres import Postgres, postgres_binaries
from fixtures.postgres_container import PostgresContainer
from fixtures.smart_host import SmartHost
from fixtures.stack import Stack


@pytest.fixture(scope="session")
def session_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for tests that do not restart it; streams are shared, so use fresh queue ids."""
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker of the test's own, provisioned; it may be killed and restarted."""
    own = Broker(tmp_path / "broker")
    own.start()
    try:
        await own.provision()
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres | PostgresContainer]:
    """One PostgreSQL server for all tests of a run: the image that we ship where an engine is present, else the machine's own binaries."""
    image = "" if engine_trouble() else build_image("database")
    server = PostgresContainer(image, PROJECT) if image else _local_postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        if image:
            remove_image(image)


def _local_postgres() -> Postgres:
    binaries = postgres_binaries()
    if binaries is None:
        lacking("a container engine, or PostgreSQL's server binaries (Debian: postgresql)")
    return Postgres(binaries)


@pytest.fixture
def postgres_url(postgres_server: Postgres | PostgresContainer) -> Iterator[str]:
    """URL (postgresql+asyncpg) of a fresh database of the test's own."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
async def smart_host() -> AsyncIterator[SmartHost]:
    """A recording SMTP sink of the test's own; it may be stopped, started again, and made to misbehave."""
    host = SmartHost()
    await host.start()
    yield host
    await host.stop()


@pytest.fixture
def dns_server() -> Iterator[DnsServer]:
    """A DNS server of the test's own, on loopback, that knows nothing yet; it may be slow, silent or wrong."""
    with DnsServer() as server:
        yield server


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`postern up` with its demo policy, for all tests of a file."""
    with Stack(tmp_path_factory.mktemp("stack") / "var") as running:
        yield running
