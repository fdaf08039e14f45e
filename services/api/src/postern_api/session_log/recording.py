"""The statement that writes the session log: compiled once, since there may be hundreds of records a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from postern_api.store.database import Database
from postern_api.store.models import session_log
from postern_core.contract import decode
from postern_core.session_log import SessionBatch
from postern_core.sessions import GATE_SERVICES

_COLUMNS: Final = tuple(column.name for column in session_log.columns)


def read_sessions(subject: str, data: bytes) -> SessionBatch:
    """What a gate told. ValueError when it cannot be read, or is about another gate than the one that told it."""
    batch = decode(data, SessionBatch)
    # the broker lets each service tell under its own name only
    if subject.split(".")[1] != GATE_SERVICES.get(batch.gate):
        raise ValueError(f"{subject} tells of sessions at {batch.gate.value}")
    return batch


class SessionLogWriter:
    """Writing is idempotent: a record that is there already stays as it is."""

    def __init__(self, database: Database) -> None:
        self._stored = database.stored_time
        self._put = database.prepare(database.insert(session_log).on_conflict_do_nothing(), _COLUMNS)

    async def write(self, connection: AsyncConnection, batches: Sequence[SessionBatch]) -> None:
        """In the caller's transaction. ValueError or an error of the database for what it cannot take."""
        rows = [row for batch in batches for row in self._rows(batch)]
        if rows:
            await self._put.run(connection, rows)

    def _rows(self, batch: SessionBatch) -> list[tuple[Any, ...]]:
        gate, instance = batch.gate.value, _text(batch.instance)
        return [
            (
                self._stored(each.at),
                _text(each.session),
                each.n,
                gate,
                instance,
                _text(each.client),
                _text(each.server),
                _text(each.host),
                _text(each.user),
                _text(each.tls),
                _text(each.verb),
                _text(each.argument),
                each.code,
                each.received_bytes,
                each.sent_bytes,
                each.taken_ms,
                each.commands,
                each.errors,
                each.messages,
                each.recipients,
            )
            for each in batch.records
        ]


def _text(told: str) -> str:
    return told.replace("\0", "?") if "\0" in told else told  # PostgreSQL's text holds none
