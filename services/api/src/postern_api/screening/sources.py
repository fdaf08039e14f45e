"""Mail to rehearse rules on: what is held, and what the archive has of the last hours. Read one after the other, never parsed.

Each comes with the verdict that it got when it was live.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

import structlog

from postern_core.archive import unframe_archived
from postern_core.bus import BodyMissing, BodyStore, Bus
from postern_core.bus.topology import ARCHIVE, QUARANTINE
from postern_core.envelope import Envelope, unframe
from postern_core.verdict import HeldMessage, Verdict

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Earlier:
    """A message as it was screened. `read`: how much of its source has been gone through, 0 to 1. Without an envelope there is nothing to try at
    this place."""

    source: str
    read: float
    envelope: Envelope | None = None
    body: bytes | memoryview = b""
    verdict: Verdict | None = None
    subject: str = ""


class Sources:
    """TransientError from each when the bus does not answer."""

    def __init__(self, bus: Bus, bodies: BodyStore) -> None:
        self._bus = bus
        self._bodies = bodies

    async def held(self) -> AsyncIterator[Earlier]:
        """Everything that is in quarantine, the oldest first."""
        state = await self._bus.stream_state(QUARANTINE)
        first, last = int(state["first_seq"]), int(state["last_seq"])
        sequence = first
        while sequence <= last and (stored := await self._bus.next_on(QUARANTINE, "quarantine.*", sequence)) is not None:
            sequence = stored.sequence + 1
            read = _share(stored.sequence, first, last)
            try:
                held, inline = unframe(stored.data, HeldMessage)
                body = await self._bodies.load(held.envelope, inline)
            except (ValueError, BodyMissing):
                yield Earlier("held", read)
                continue
            yield Earlier("held", read, held.as_it_came_in, body, held.verdict, held.subject)

    async def archived(self, since: datetime) -> AsyncIterator[Earlier]:
        """What was screened since then, the oldest first."""
        state = await self._bus.stream_state(ARCHIVE)
        last = int(state["last_seq"])
        first = sequence = await self._first_since(int(state["first_seq"]), last, since)
        while sequence <= last and (stored := await self._bus.next_on(ARCHIVE, "archive.*", sequence)) is not None:
            sequence = stored.sequence + 1
            read = _share(stored.sequence, first, last)
            try:
                members = unframe_archived(stored.data)
            except ValueError as error:
                log.warning("archive.unreadable", sequence=stored.sequence, reason=str(error))
                yield Earlier("archive", read)
                continue
            for head, body in members:
                yield Earlier("archive", read, head.envelope, body, head.verdict, head.subject)

    async def _first_since(self, first: int, last: int, since: datetime) -> int:
        """The number of the first entry that was stored since then; they are in the order of time."""
        while first < last:
            middle = (first + last) // 2
            stored = await self._bus.next_on(ARCHIVE, "archive.*", middle)
            if stored is None:
                last = middle
            elif stored.at < since:
                first = stored.sequence + 1
            else:
                last = middle
        return first


def _share(sequence: int, first: int, last: int) -> float:
    return (sequence - first + 1) / max(last - first + 1, 1)
