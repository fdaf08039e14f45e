"""Finds stored bodies that belong to no message any more, and removes them.

A body is stored before the message that refers to it, and deleted after: a program that dies in between leaves one behind. A body's owner
is looked for in the order in which mail moves (INTAKE, QUARANTINE, OUTBOUND, DEFERRED, BADMAIL; nothing ever moves against it), and mail
is published to the next place before it leaves the last: so whoever is there at all is found, however much moves meanwhile. Removed is what
had no owner on every look for the length of a grace, which must be longer than storing a body and its message takes.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from postern_core.bus import Bus
from postern_core.bus.topology import BADMAIL, BODIES, DEFERRED, INTAKE, OUTBOUND, QUARANTINE
from postern_core.ids import QueueId, accepted_at, parse_queue_id
from postern_delivery.bodies import every_subject

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_ID_LENGTH = 26


class OrphanBodies:
    """See the module. Several replicas may look at once: each counts the grace for itself."""

    def __init__(self, bus: Bus, *, grace_s: float) -> None:
        self._bus = bus
        self._grace_s = grace_s
        self._ownerless_since: dict[str, float] = {}  # body name → loop time

    async def sweep(self) -> int:
        """Look once at every body that is old enough, and remove those whose grace is over; returns how many. Raises TransientError."""
        candidates = await self._candidates()
        ownerless = await self._without_owner(candidates)
        now = asyncio.get_running_loop().time()
        self._ownerless_since = {name: self._ownerless_since.get(name, now) for name in ownerless}
        removed = 0
        for name, since in list(self._ownerless_since.items()):
            if now - since >= self._grace_s:
                await self._bus.purge(BODIES, f"body.{name}.*")
                del self._ownerless_since[name]
                removed += 1
                log.warning("body.orphan_removed", id=candidates[name], name=name)
        return removed

    async def _candidates(self) -> dict[str, QueueId]:
        """Name → queue id of the bodies that are older than the grace, going by their queue id."""
        oldest = datetime.now(UTC) - timedelta(seconds=self._grace_s)
        found: dict[str, QueueId] = {}
        async for subject in every_subject(self._bus, BODIES, "body.*.*.*"):
            name = subject.removeprefix("body.").rpartition(".")[0]
            try:
                queue_id = parse_queue_id(name.partition(".")[2][:_ID_LENGTH])
            except ValueError:
                log.error("body.name_unknown", name=name)
                continue
            if accepted_at(queue_id) <= oldest:
                found[name] = queue_id
        return found

    async def _without_owner(self, candidates: dict[str, QueueId]) -> set[str]:
        left = set(candidates)
        for stream, tokens in ((INTAKE, "intake.*"), (QUARANTINE, "quarantine"), (OUTBOUND, "outbound.*")):
            for queue_id in {candidates[name] for name in left}:
                if await self._bus.subjects(stream, f"{tokens}.{queue_id}"):
                    left -= _named(candidates, queue_id)
        for stream in (DEFERRED, BADMAIL):
            if left:
                # their subjects are job ids, `<queue-id>-<route>-<generation>`
                owners = {subject.partition(".")[2][:_ID_LENGTH] async for subject in every_subject(self._bus, stream, ">")}
                left = {name for name in left if candidates[name] not in owners}
        return left


def _named(candidates: dict[str, QueueId], queue_id: QueueId) -> set[str]:
    return {name for name, owner in candidates.items() if owner == queue_id}
