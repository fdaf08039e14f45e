"""Brings the database to the newest schema at start; replicas that start at once wait for one another.

The migration tool costs ten megabytes for as long as the process lives. A database that is there already is recognised by its version alone, and a
new one gets the tables of the models, which are those that the migrations make (test_store.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, text

from postern_api.store.database import Database
from postern_api.store.models import metadata

log: structlog.stdlib.BoundLogger = structlog.get_logger()

HEAD: Final = "0006"
_LOCK: Final = 0x506F737465726E  # any number that all replicas agree on


async def migrate(database: Database) -> None:
    """Upgrade to `HEAD`. SQLAlchemyError or OSError when the database does not answer."""
    async with database.write() as connection:
        if not database.is_sqlite:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            if (await connection.execute(text("SHOW fsync"))).scalar() != "on":
                # no reason to refuse it: it holds no mail. But a loss of power may ruin it
                log.error("database.does_not_sync", alarm=True, reason="PostgreSQL runs with fsync=off")
        found = await connection.run_sync(_version)
        if found is None and await connection.run_sync(_is_empty):
            await connection.run_sync(create)
            log.info("database.created", version=HEAD)
        elif found != HEAD:
            await connection.run_sync(upgrade)
            log.info("database.migrated", from_version=found, to_version=HEAD)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _is_empty(connection: Connection) -> bool:
    return not inspect(connection).get_table_names()


def create(connection: Connection) -> None:
    """Make the newest schema in an empty database, inside the caller's transaction."""
    metadata.create_all(connection)
    version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
    version.create(connection)
    connection.execute(version.insert().values(version_num=HEAD))


def upgrade(connection: Connection) -> None:
    """Run the migrations inside the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
