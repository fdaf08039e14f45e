"""Where a message is now: asked of the streams themselves, by subject, without reading any mail.

A deferred job's subject holds its route and generation, so those that the message can have are asked for: the routes of the policy and
those that its trace names, up to the generation that its dispositions reached.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Final

import structlog

from postern_api.messages.records import Trace
from postern_api.messages.repository import TraceRepository
from postern_api.policy.repository import PolicyRepository
from postern_core.batch import queue_ids_in
from postern_core.bus import Bus
from postern_core.bus.topology import BADMAIL, DEFERRED, INTAKE, OUTBOUND, QUARANTINE, checked_route_name
from postern_core.errors import TransientError
from postern_core.ids import QueueId

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_MOST_CANDIDATES: Final = 128
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Place:
    """A stream that holds the message, or a job of it, under this subject."""

    stream: str
    subject: str


class MessageService:
    def __init__(self, bus: Bus, repository: TraceRepository, policy: PolicyRepository) -> None:
        self._bus = bus
        self._repository = repository
        self._policy = policy

    async def trace(self, queue_id: QueueId) -> tuple[Trace, list[Place] | None]:
        """What is recorded of the message, and where it is now: None when the bus does not answer."""
        trace = await self._repository.trace(queue_id)
        try:
            return trace, await self.places(queue_id, trace)
        except TransientError as error:
            log.warning("trace.places_unknown", id=queue_id, reason=error.reason)
            return trace, None

    async def places(self, queue_id: QueueId, trace: Trace) -> list[Place]:
        """TransientError when the bus does not answer."""
        filters = [(INTAKE, f"intake.*.{queue_id}"), (OUTBOUND, f"outbound.*.{queue_id}"), (QUARANTINE, f"quarantine.{queue_id}")]
        for job_id in await self._job_ids(queue_id, trace):
            filters += [(DEFERRED, f"deferred.{job_id}"), (BADMAIL, f"badmail.{job_id}")]
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def ask(stream: str, subject_filter: str) -> list[Place]:
            async with at_once:
                return [Place(stream, subject) for subject in await self._bus.subjects(stream, subject_filter)]

        found = await asyncio.gather(*(ask(stream, subject_filter) for stream, subject_filter in filters))
        places = [place for some in found for place in some]
        on_the_way = {place.stream for place in places} & {INTAKE, OUTBOUND}
        if not on_the_way and trace.message is not None and trace.message.is_open:
            places = await self._in_batches(queue_id) + places
        return places

    async def _in_batches(self, queue_id: QueueId) -> list[Place]:
        """Where it is a member of a batch: no filter finds that, so the subjects are gone through (of the first 100,000 entries)."""
        found = await asyncio.gather(*(self._bus.subjects(stream, ">") for stream in (INTAKE, OUTBOUND)))
        return [
            Place(stream, subject)
            for stream, subjects in zip((INTAKE, OUTBOUND), found, strict=True)
            for subject in subjects
            if queue_id in queue_ids_in(subject.rpartition(".")[2])
        ]

    async def _job_ids(self, queue_id: QueueId, trace: Trace) -> list[str]:
        newest = await self._policy.newest()
        routes = {route.name for route in newest.snapshot.routes} if newest else set()
        routes |= {end.route for end in trace.dispositions if end.route}
        routes |= {route for event in trace.events if isinstance(route := event.fields.get("route"), str) and route}
        routes = {route for route in routes if is_route_name(route)}  # what services told ends up in a subject
        generations = range(max((end.generation for end in trace.dispositions), default=0) + 1)
        candidates = (f"{queue_id}-{route}-{generation}" for route in sorted(routes) for generation in generations)
        return list(itertools.islice(candidates, _MOST_CANDIDATES))


def is_route_name(name: str) -> bool:
    try:
        checked_route_name(name)
    except ValueError:
        return False
    return True
