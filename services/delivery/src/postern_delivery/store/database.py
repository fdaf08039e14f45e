"""Connections to database `queue`: SQLite (WAL, synced at each commit) or PostgreSQL.

Whatever goes wrong with the database reaches the caller as `DatabaseAway`: delivery goes on without it, and the janitor makes up for
what could not be written. A write transaction on SQLite takes its lock at its beginning (BEGIN IMMEDIATE), since one that finds another
writer ahead after it has read cannot wait; within the process writers queue up at a lock of ours.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiosqlite
from sqlalchemy import URL, Connection, Table, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

if TYPE_CHECKING:
    # PostgreSQL's dialect and driver are four megabytes, for nothing where the database is SQLite
    from sqlalchemy.dialects import postgresql

_PATIENCE_S: Final = 10  # with another process that has the lock
_FAULTS: tuple[type[Exception], ...] = (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError)


class DatabaseAway(Exception):  # noqa: N818  (a state of the world, not of the program)
    """The queue database did not do what it was asked; nothing of it was committed, or it is not known to be."""


class Database:
    """See the module."""

    def __init__(self, url: URL) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._faults = _FAULTS if self.is_sqlite else _FAULTS + _faults_of_postgresql()
        self._url = url
        self._engine: AsyncEngine | None = None
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read from, which shows one moment however many statements are run on it. Raises DatabaseAway."""
        try:
            async with self._opened().connect() as connection:
                if not self.is_sqlite:  # whose transactions see one snapshot anyway
                    await connection.execution_options(isolation_level="REPEATABLE READ")
                yield connection
        except self._faults as error:
            raise DatabaseAway(_reason(error)) from error

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed when the block ends without an error. Raises DatabaseAway."""
        try:
            if not self.is_sqlite:
                async with self._opened().begin() as connection:
                    yield connection
                return
            async with self._writing, self._opened().connect() as connection:
                await connection.execution_options(postern_write=True)
                async with connection.begin():
                    yield connection
        except self._faults as error:
            raise DatabaseAway(_reason(error)) from error

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT (both dialects spell it alike)."""
        if self.is_sqlite:
            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            self._engine = _sqlite(self._url) if self.is_sqlite else _postgresql(self._url)
        return self._engine


def _reason(error: Exception) -> str:
    """One line, without the statement and its parameters."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _faults_of_postgresql() -> tuple[type[Exception], ...]:
    """What its driver raises of its own, past SQLAlchemy."""
    import asyncpg

    return asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError


def _postgresql(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=4,
        max_overflow=4,
        pool_timeout=10,
        pool_pre_ping=True,
        # a commit that is acknowledged is on disk (docs/reliability.md), whatever the server's default
        connect_args={"timeout": 5, "command_timeout": 30, "server_settings": {"synchronous_commit": "on"}},
    )


def _sqlite(url: URL) -> AsyncEngine:
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    # the driver begins no transactions of its own: `_begin` does
    engine = create_async_engine(url, hide_parameters=True, pool_size=3, max_overflow=2, connect_args={"isolation_level": None})

    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: AdaptedConnection, _: ConnectionPoolEntry) -> None:
        connection.run_async(_prepare)

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        options: Any = connection.get_execution_options()
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("postern_write") else "BEGIN")

    return engine


async def _prepare(connection: aiosqlite.Connection) -> None:
    await connection.execute_fetchall(f"PRAGMA busy_timeout={_PATIENCE_S * 1000}")
    await _write_ahead(connection)
    await connection.execute_fetchall("PRAGMA synchronous=FULL")


async def _write_ahead(connection: aiosqlite.Connection) -> None:
    """SQLite's own patience does not cover this step: where another replica, which starts at the same time, writes to a database that has not
    taken it yet, it is "locked" at once."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE_S
    while True:
        try:
            await connection.execute_fetchall("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or loop.time() >= until:
                raise
            await asyncio.sleep(0.02)
        else:
            return
