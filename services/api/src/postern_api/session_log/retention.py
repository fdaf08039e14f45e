"""Forgets old records of the session log, hourly: by age, and by number, so that a flood of connections cannot fill the database."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from postern_api.session_log.repository import SessionLogRepository

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_EVERY_S: Final = 3600.0
_STEP: Final = 10_000  # records of a transaction: the recorder waits no longer than for these


async def keep_session_log(repository: SessionLogRepository, stop: asyncio.Event, *, days: int, rows: int) -> None:
    """Until `stop`."""
    while not stop.is_set():
        try:
            before = await repository.cut(datetime.now(UTC) - timedelta(days=days), rows)
            while not stop.is_set() and await repository.prune(before, _STEP):
                pass
        except (SQLAlchemyError, OSError) as error:
            log.warning("session_log.prune_failed", reason=type(error).__name__)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _EVERY_S)
