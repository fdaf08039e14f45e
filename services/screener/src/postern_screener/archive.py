"""Copies of screened mail for ARCHIVE, where the policy wants them: written after the hand-over, many in one entry, and never waited for.

What waits here is bounded. While it is full, or the bus does not take an entry, copies are left out, and counted in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import replace
from typing import Final

import msgspec
import structlog

from postern_core.archive import MOST_ARCHIVED_OCTETS, ArchivedMessage, frame_archived
from postern_core.broker.permissions import MAX_PAYLOAD_BYTES
from postern_core.bus import Bus
from postern_core.bus.topology import ARCHIVE, archive_subject
from postern_core.errors import TransientError
from postern_core.verdict import HoldReason
from postern_screener.judged import Judged, shares

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_MOST_WAITING_OCTETS: Final = 16 * 1024 * 1024
_COLLECT_S: Final = 0.5
_MOST_MEMBERS: Final = 100
_ENOUGH_OCTETS: Final = 1024 * 1024  # of an entry
_LARGEST_OCTETS: Final = MAX_PAYLOAD_BYTES - 64 * 1024
_DEADLINE_S: Final = 5.0
_LAST_S: Final = 1.0  # at the end: nobody waits for copies
_NOT_READ: Final = frozenset({HoldReason.POISON, HoldReason.BODY_MISSING})  # nobody has the whole message


class Archive:
    """One for each worker."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: deque[Judged] = deque()
        self._octets = 0
        self._arrived = asyncio.Event()
        self.left_out = 0

    def offer(self, judged: Judged) -> None:
        """Keep a copy if there is room for it, of each share where recipients went their own ways; returns at once."""
        for share in shares(judged):
            # as it came in: rules ask for that
            envelope = msgspec.structs.replace(share.envelope, gate=share.came_in_at or share.envelope.gate)
            self._offer(replace(share, envelope=envelope))
        if not judged.screened.outcomes:
            self._offer(judged)

    def _offer(self, judged: Judged) -> None:
        octets = len(judged.body)
        if judged.screened.verdict.hold_reason in _NOT_READ:
            return
        if octets > MOST_ARCHIVED_OCTETS or self._octets + octets > _MOST_WAITING_OCTETS:
            self.left_out += 1
            return
        self._octets += octets
        self._waiting.append(judged)
        self._arrived.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Write until `stop`, then what is left as long as the bus takes it."""
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._arrived.set())
        try:
            while not stop.is_set():
                await self._arrived.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_COLLECT_S):
                        await stop.wait()
                self._arrived.clear()
                await self._write_waiting(stop)
        finally:
            stopped.cancel()

    async def _write_waiting(self, stop: asyncio.Event) -> None:
        written = True
        while self._waiting and (written or not stop.is_set()):
            members = [self._waiting.popleft()]  # of whatever size
            octets = len(members[0].body)
            while self._waiting and len(members) < _MOST_MEMBERS and octets + len(self._waiting[0].body) <= _ENOUGH_OCTETS:
                members.append(self._waiting.popleft())
                octets += len(members[-1].body)
            written = await self._write(members, _LAST_S if stop.is_set() else _DEADLINE_S)

    async def _write(self, members: list[Judged], deadline_s: float) -> bool:
        self._octets -= sum(len(each.body) for each in members)
        payload = frame_archived([(_head(each), each.body) for each in members])
        first = members[0].envelope.id
        if len(payload) > _LARGEST_OCTETS:  # for very many recipients
            self.left_out += len(members)
            return True
        try:
            msg_id = f"{first}:archive:{len(members)}"
            await self._bus.publish(ARCHIVE, archive_subject(first), payload, msg_id, deadline_s=deadline_s)
        except TransientError as error:
            self.left_out += len(members)
            log.warning("archive.left_out", messages=len(members), in_all=self.left_out, reason=error.reason)
            return False
        return True


def _head(judged: Judged) -> ArchivedMessage:
    envelope = msgspec.structs.replace(judged.envelope, body=None)
    return ArchivedMessage(envelope=envelope, verdict=judged.screened.verdict, subject=judged.screened.subject)
