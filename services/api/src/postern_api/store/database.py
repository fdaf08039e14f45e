"""Connections to database `control`: SQLite (WAL, synced at each commit) or PostgreSQL.

A write transaction on SQLite takes its lock at its beginning (BEGIN IMMEDIATE), since one that begins by reading and then finds
another writer ahead cannot wait: it fails at once. Within the process writers queue up at a lock of ours.

What a failed statement means is decided here, by `is_away` and `refuses_value`, and nowhere else.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiosqlite
from sqlalchemy import URL, Connection, Executable, Table, event, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

if TYPE_CHECKING:
    # two megabytes, for nothing where the database is SQLite; the engine brings it where it is not
    from sqlalchemy.dialects import postgresql

_PATIENCE_S: Final = 10  # with another process that has SQLite's lock

# SQLSTATE classes (PostgreSQL, appendix A): data exception, constraint violation, syntax error or access rule violation
_DATA_EXCEPTION: Final = "22"
_STATEMENTS_FAULT: Final = (_DATA_EXCEPTION, "23", "42")


def is_away(error: BaseException) -> bool:
    """Whether the database as a whole failed (away, shutting down, full, read-only, no connection left): the same may work later.

    PostgreSQL's driver has no class of its own for most of that, so it is told by the SQLSTATE."""
    if isinstance(error, DBAPIError):
        if isinstance(error, DataError | IntegrityError | ProgrammingError):
            return False
        return not _sqlstate(error).startswith(_STATEMENTS_FAULT)
    return isinstance(error, PoolTimeoutError | OSError)


def refuses_value(error: BaseException) -> bool:
    """Whether a value is what the database or its driver cannot take (a number or a time out of range): it never will."""
    if isinstance(error, DBAPIError):
        return isinstance(error, DataError) or _sqlstate(error).startswith(_DATA_EXCEPTION)
    return isinstance(error, StatementError | OverflowError | ValueError)


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


class Prepared:
    """A statement that was compiled once; see `Database.prepare`."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def run(self, connection: AsyncConnection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Execute it for each row; there must be one."""
        await connection.exec_driver_sql(self._text, list(rows))


class Database:
    """See the module. Reads and writes are transactions; a write commits when its block ends without an error."""

    def __init__(self, url: URL) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.engine: AsyncEngine = _sqlite(url) if self.is_sqlite else _postgresql(url)
        self._drivers_own = () if self.is_sqlite else _errors_of_postgresqls_driver()
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        with self._told_of_driver():
            async with self.engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        if not self.is_sqlite:
            with self._told_of_driver():
                async with self.engine.begin() as connection:
                    yield connection
            return
        async with self._writing, self.engine.connect() as connection:
            await connection.execution_options(postern_write=True)
            async with connection.begin():
                yield connection

    @contextmanager
    def _told_of_driver(self) -> Iterator[None]:
        """Where a transaction begins or ends, a server that goes away makes the driver raise errors of its own, past SQLAlchemy: ConnectionError then."""
        try:
            yield
        except self._drivers_own as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT (both dialects spell it alike)."""
        if self.is_sqlite:
            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)

    def prepare(self, statement: Executable, names: Sequence[str]) -> Prepared:
        """For a statement that is executed for so many rows that compiling and binding it anew each time would cost more than the rest. Its
        rows are tuples of the values of its parameters, `names`, as the driver stores them: of a time, `stored_time`.

        ValueError when its parameters are others, or in another order."""
        compiled: Any = statement.compile(dialect=self.engine.dialect, column_keys=list(names))  # type: ignore[attr-defined]
        if list(compiled.positiontup) != list(names):
            raise ValueError(f"the statement's parameters are {compiled.positiontup}, not {names}")
        return Prepared(str(compiled))

    def stored_time(self, at: datetime) -> str | datetime:
        """As `models.UtcDateTime` would bind it."""
        utc = at.astimezone(UTC)
        return utc.replace(tzinfo=None).isoformat(" ", "microseconds") if self.is_sqlite else utc

    async def ping(self, timeout_s: float) -> None:
        """Ask for one row; TimeoutError, OSError or SQLAlchemyError when the database does not answer."""
        async with asyncio.timeout(timeout_s), self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


def _errors_of_postgresqls_driver() -> tuple[type[Exception], ...]:
    import asyncpg

    return asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError


def _postgresql(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        hide_parameters=True,  # they hold addresses and hashes, which belong in no log
        pool_size=4,
        max_overflow=4,
        pool_pre_ping=True,
        # a commit that is acknowledged is on disk, whatever the server's default
        connect_args={"timeout": 10, "command_timeout": 60, "server_settings": {"synchronous_commit": "on"}},
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
    # a cache of 16 MB: with the usual two, a batch of the trace reads the pages of its indexes again and again
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
        await connection.execute_fetchall(f"PRAGMA {pragma}")


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
