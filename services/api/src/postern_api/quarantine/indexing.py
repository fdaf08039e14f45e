"""Keeps the index equal to stream QUARANTINE: reads what is new, and drops what is gone.

Run when a disposition says `held`, before each list, and every 30 seconds. When nothing changed it costs one question about the stream.
Their numbers are compared each time, their contents at the start and every ten minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from postern_api.quarantine.repository import HeldRow, QuarantineIndex
from postern_core.bus import Bus
from postern_core.bus.connection import Stored
from postern_core.bus.topology import QUARANTINE
from postern_core.envelope import unframe
from postern_core.errors import TransientError
from postern_core.verdict import HeldMessage

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_EVERY_S: Final = 30.0
_COMPARE_EVERY_S: Final = 600.0
_BATCH: Final = 50
_PREFIX: Final = "quarantine."
_UNREADABLE: Final = "unreadable"  # in place of a reason to hold
_MOST_GENERATIONS: Final = 2**31
_MOST_BYTES: Final = 2**50
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


class QuarantineIndexer:
    """See the module."""

    def __init__(self, bus: Bus, index: QuarantineIndex) -> None:
        self._bus = bus
        self._index = index
        self._one_at_a_time = asyncio.Lock()
        self._wake = asyncio.Event()
        self._seen = -1  # last sequence that was read; -1: nothing yet
        self._compare_at = 0.0

    def poke(self) -> None:
        """There is something new."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        try:
            while not stop.is_set():
                self._wake.clear()
                try:
                    await self.refresh()
                except (TransientError, SQLAlchemyError, OSError) as error:
                    reason = error.reason if isinstance(error, TransientError) else type(error).__name__
                    log.warning("quarantine.index_failed", reason=reason)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _EVERY_S)
        finally:
            stopped.cancel()

    async def refresh(self) -> None:
        """Bring the index up to date. TransientError when the bus does not answer."""
        async with self._one_at_a_time:
            state = await self._bus.stream_state(QUARANTINE)
            rows, last = await self._index.extent()
            if self._seen < 0:
                self._seen = last
            if int(state["last_seq"]) < self._seen:
                self._seen = 0  # another stream than before
            if int(state["last_seq"]) > self._seen:
                await self._read_new(int(state["last_seq"]))
                rows, _ = await self._index.extent()
            now = asyncio.get_running_loop().time()
            if rows != int(state["messages"]) or now >= self._compare_at:
                await self._compare()
                self._compare_at = now + _COMPARE_EVERY_S

    async def _read_new(self, last: int) -> None:
        batch: list[HeldRow] = []
        while self._seen < last:
            stored = await self._bus.next_on(QUARANTINE, f"{_PREFIX}*", self._seen + 1)
            if stored is None:
                self._seen = last
                break
            batch.append(_row(stored))
            if len(batch) >= _BATCH:
                await self._index.put(batch)
                batch.clear()
            self._seen = stored.sequence
        await self._index.put(batch)

    async def _compare(self) -> None:
        there: set[str] = set()
        while True:
            page = await self._bus.subjects(QUARANTINE, f"{_PREFIX}*", offset=len(there))
            if not page:
                break
            there |= {subject.removeprefix(_PREFIX) for subject in page}
        known = await self._index.ids()
        await self._index.remove(known - there)
        # what an older api, or another replica, could not read, this one perhaps can
        unread = await self._index.ids(reason=_UNREADABLE)
        for queue_id in sorted(there - (known - unread)):
            stored = await self._bus.last(QUARANTINE, f"{_PREFIX}{queue_id}")
            if stored is not None:
                await self._index.put([_row(stored)])


def _row(stored: Stored) -> HeldRow:
    try:
        held, _ = unframe(stored.data, HeldMessage)
    except ValueError as error:
        return _unreadable(stored, str(error))
    if held.envelope.id != stored.subject.removeprefix(_PREFIX):
        return _unreadable(stored, "it names another queue id than its subject")
    row = index_row(held, stored.sequence)
    if not (0 <= row.generation < _MOST_GENERATIONS and 0 <= row.size_bytes < _MOST_BYTES and _FIRST < row.accepted_at < _LAST):
        return _unreadable(
            stored, "its generation, size or time cannot be"
        )  # a column would not take them, nor any row with them
    return row


def _unreadable(stored: Stored, reason: str) -> HeldRow:
    """An entry that nobody can read is shown all the same: it is somebody's mail."""
    log.error("quarantine.unreadable", subject=stored.subject, sequence=stored.sequence, reason=reason)
    return HeldRow(
        queue_id=stored.subject.removeprefix(_PREFIX),
        sequence=stored.sequence,
        generation=0,
        gate="",
        accepted_at=stored.at,
        reverse_path="",
        recipients=[],
        subject="",
        reason=_UNREADABLE,
        rule_id="",
        rule_name="",
        detail=reason[:500],
        size_bytes=len(stored.data),
        client="",
    )


def index_row(held: HeldMessage, sequence: int) -> HeldRow:
    """What the index keeps of a held message."""
    envelope, verdict = held.envelope, held.verdict
    decided = verdict.deciding
    return HeldRow(
        queue_id=envelope.id,
        sequence=sequence,
        generation=held.generation,
        gate=envelope.gate.value,
        accepted_at=envelope.accepted_at,
        reverse_path=envelope.reverse_path,
        recipients=[recipient.address for recipient in envelope.recipients],
        subject=held.subject,
        reason=verdict.hold_reason.value if verdict.hold_reason else "",
        rule_id=decided.rule_id if decided else "",
        rule_name=decided.rule_name if decided else "",
        detail=verdict.detail,
        size_bytes=envelope.size_bytes,
        client=envelope.client.address,
    )
