"""Rehearsals: rules tried on held mail and on the traffic of the last hours, to see which messages would change their disposition.

One at a time, in this process's memory: a restart forgets them. A rehearsal takes what nobody else wants: the screener tries its mail at the lowest
priority, in small requests one after the other, with rests while there is live mail, and it waits while mail waits in INTAKE or the machine is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from postern_api.errors import ApiError, ConflictError, NotFoundError, TooLargeError, UnavailableError
from postern_api.screening.drafts import Draft
from postern_api.screening.rehearsal import Rehearsal, Source, State, compare, end, progress
from postern_api.screening.service import Mail, ScreeningService, encoded
from postern_api.screening.sources import Earlier, Sources
from postern_core.broker.names import SCREENER_CONSUMER
from postern_core.bus import Bus
from postern_core.bus.topology import INTAKE
from postern_core.errors import TransientError
from postern_core.ids import new_queue_id
from postern_core.trial import TRIALS_ARE_BUSY, TrialAnswer

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_MOST_KEPT: Final = 20  # rehearsals that are over
_BATCH_MESSAGES: Final = 32
_BATCH_OCTETS: Final = 1024 * 1024
_BACKLOG: Final = 20  # entries that wait in INTAKE
_PAUSE_S: Final = 0.5
# broker, api and the worker hand the mail over at no low priority: while there is live mail, that is done a tenth of the time at most
_REST: Final = 9.0
_LONGEST_REST_S: Final = 5.0
_NOTICEABLE_MS: Final = 5.0
_REFUSED_RETRIES: Final = 30  # the screener is busy with other trials
_UNANSWERED_RETRIES: Final = 6  # half a minute: it may be started anew


class UnknownRehearsalError(NotFoundError):
    """It may be known all the same, to another replica."""

    def __init__(self, identity: str) -> None:
        super().__init__("rehearsal", identity)
        self.message += " in this replica of the api: it is over and forgotten (a restart does that, too), or another replica was asked to begin it"


class Rehearsals:
    """See the module."""

    def __init__(self, bus: Bus, screening: ScreeningService, sources: Sources) -> None:
        self._bus = bus
        self._screening = screening
        self._sources = sources
        self._all: dict[str, Rehearsal] = {}
        self._wake = asyncio.Event()

    def begin(self, *, actor: str, source: Source, hours: int, draft: Draft, most: int) -> Rehearsal:
        """ConflictError while another one runs."""
        if any(each.state is State.RUNNING for each in self._all.values()):
            raise ConflictError("rehearsing", "a rehearsal runs already: wait for its end, or stop it")
        made = Rehearsal(
            id=f"h-{new_queue_id()}", actor=actor, source=source, hours=hours, draft=draft, most=most, begun_at=datetime.now(UTC)
        )
        while len(self._all) >= _MOST_KEPT:
            del self._all[next(iter(self._all))]
        self._all[made.id] = made
        self._wake.set()
        log.info("rehearsal.begun", rehearsal=made.id, actor=actor, source=source.value, rules=len(draft.policy.rules))
        return made

    def known(self) -> list[Rehearsal]:
        """Newest first."""
        return list(self._all.values())[::-1]

    def get(self, identity: str) -> Rehearsal:
        found = self._all.get(identity)
        if found is None:
            raise UnknownRehearsalError(identity)
        return found

    def stop(self, identity: str) -> None:
        """Stop it; one that is over is forgotten."""
        found = self.get(identity)
        if found.state is State.RUNNING:
            end(found, State.STOPPED)
        else:
            del self._all[identity]

    async def run(self, stop: asyncio.Event) -> None:
        """Carry out what was begun, until `stop`."""
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        try:
            while not stop.is_set():
                await self._wake.wait()
                self._wake.clear()
                for rehearsal in list(self._all.values()):
                    if rehearsal.state is State.RUNNING and not stop.is_set():
                        await self._carry_out(rehearsal, stop)
        finally:
            stopped.cancel()

    async def _carry_out(self, rehearsal: Rehearsal, stop: asyncio.Event) -> None:
        carrying = asyncio.create_task(self._rehearse(rehearsal), name="rehearsal")
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({carrying, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            carrying.cancel()
            stopping.cancel()
            await asyncio.gather(carrying, stopping, return_exceptions=True)

    async def _rehearse(self, rehearsal: Rehearsal) -> None:
        try:
            section = await encoded(rehearsal.draft.policy)
            batch: list[Earlier] = []
            async with contextlib.aclosing(self._mail(rehearsal)) as mail:
                async for each in mail:
                    rehearsal.progress = progress(rehearsal.source, each)
                    if each.envelope is None:
                        rehearsal.left_out += 1
                        continue
                    batch.append(each)
                    if len(batch) >= _BATCH_MESSAGES or sum(len(one.body) for one in batch) >= _BATCH_OCTETS:
                        await self._try(rehearsal, section, batch)
                        batch = []
                    if rehearsal.state is not State.RUNNING or rehearsal.examined + len(batch) >= rehearsal.most:
                        break
            await self._try(rehearsal, section, batch)
            if rehearsal.state is State.RUNNING:
                rehearsal.progress = 1.0
                end(rehearsal, State.DONE)
        except (ApiError, TransientError) as error:
            end(rehearsal, State.FAILED, error.message if isinstance(error, ApiError) else "the bus does not answer")
        except Exception:  # the one handler of a rehearsal: whoever looks at it is told
            log.exception("rehearsal.failed", rehearsal=rehearsal.id)
            end(rehearsal, State.FAILED, "internal error, see the api's log")

    async def _mail(self, rehearsal: Rehearsal) -> AsyncGenerator[Earlier]:
        if rehearsal.source is not Source.ARCHIVE:
            async for each in self._sources.held():
                yield each
        if rehearsal.source is not Source.HELD:
            async for each in self._sources.archived(rehearsal.begun_at - timedelta(hours=rehearsal.hours)):
                yield each

    async def _try(self, rehearsal: Rehearsal, section: bytes, batch: list[Earlier]) -> None:
        if not batch or not await self._nobody_waits(rehearsal):
            return
        mail = [(each.envelope, each.body) for each in batch if each.envelope is not None]
        begun = asyncio.get_running_loop().time()
        try:
            answer = await self._ask(rehearsal, section, mail)
        except TooLargeError:
            # one at a time; the one that does not fit by itself is left out
            if len(batch) == 1:
                rehearsal.left_out += 1
                return
            for each in batch:
                await self._try(rehearsal, section, [each])
            return
        if answer is None:
            return
        for each, tried in zip(batch, answer.tried, strict=True):
            compare(rehearsal, each, tried)
        took_s = asyncio.get_running_loop().time() - begun
        if _is_starved(answer):
            rehearsal.rest_s = _LONGEST_REST_S
        else:
            rehearsal.rest_s = min(_REST * took_s, _LONGEST_REST_S) if rehearsal.beside_live_mail else 0.0

    async def _ask(self, rehearsal: Rehearsal, section: bytes, mail: Mail) -> TrialAnswer | None:
        """None when the rehearsal was stopped meanwhile."""
        refused = unanswered = 0
        while rehearsal.state is State.RUNNING:
            try:
                return await self._screening.ask(section, mail)
            except ConflictError as error:
                if error.message != TRIALS_ARE_BUSY or refused == _REFUSED_RETRIES:
                    raise
                refused += 1
                await asyncio.sleep(_PAUSE_S)
            except UnavailableError:
                # a worker that died took the request with it
                if unanswered == _UNANSWERED_RETRIES:
                    raise
                await asyncio.sleep(_PAUSE_S * 2**unanswered)
                unanswered += 1
        return None

    async def _nobody_waits(self, rehearsal: Rehearsal) -> bool:
        """Wait until live mail does not; False when the rehearsal was stopped meanwhile."""
        rehearsal.waiting = rehearsal.rest_s >= _LONGEST_REST_S
        await asyncio.sleep(rehearsal.rest_s)
        while rehearsal.state is State.RUNNING:
            info = await self._bus.consumer_info(INTAKE, SCREENER_CONSUMER)
            pending = int(info["num_pending"])
            rehearsal.beside_live_mail = pending + int(info["num_ack_pending"]) > 0
            rehearsal.waiting = pending > _BACKLOG
            if not rehearsal.waiting:
                return True
            await asyncio.sleep(_PAUSE_S)
        return False


def _is_starved(answer: TrialAnswer) -> bool:
    """Whether the screener's child, which runs when nobody else wants to, got the processor for less than half of the time: there is no capacity to spare."""
    wall, cpu = (sum(tried.steps_ms.get(name, 0.0) for tried in answer.tried) for name in ("screen", "cpu"))
    return wall > _NOTICEABLE_MS and cpu < wall / 2
