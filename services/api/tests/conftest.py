"""Fixtures of the api's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi
from fixtures.broker import Broker
from postern_api.store.database import Database
from postern_api.store.migrating import migrate


@pytest.fixture
async def start_api(broker: Broker, tmp_path: Path) -> AsyncIterator[ApiStarter]:
    starter = ApiStarter(broker, tmp_path)
    try:
        yield starter
    finally:
        await starter.close()


@pytest.fixture
async def api(start_api: ApiStarter) -> RunningApi:
    """An api with the bootstrap policy."""
    return await start_api(BOOTSTRAP)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/control.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database of either kind."""
    made = Database(make_url(database_url))
    await migrate(made)
    yield made
    await made.close()
