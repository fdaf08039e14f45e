"""Looks at the bus every few seconds, has the books compared with the mail now and then, and keeps the alarms.

Reads only, so that each replica of the api may do it, and so that it may be cut off at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from postern_api.alarms.board import AlarmBoard
from postern_api.alarms.conditions import Past, conditions, covers
from postern_api.alarms.kinds import Key, Kind
from postern_api.alarms.look import Observer, engines_down, stale_replicas
from postern_api.errors import ApiError
from postern_api.ledger.verification import PROOF_GRACE_S, Verifier
from postern_api.policy.publishing import Publisher
from postern_api.status.board import StatusBoard, is_fresh
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SPREAD: Final = 0.1  # of each pause, so that replicas do not look in step
_SOON_S: Final = 60.0  # after the start, when what a crash or a disk did is to be found
_AGAIN_S: Final = 300.0  # while the books do not balance, or could not be compared

# what is done with the board after each look, and of which conditions that look could tell
AfterLook = Callable[[AlarmBoard, Callable[[Key], bool]], Awaitable[None]]


class Watch:
    """`looked_at` is when the last look ended, None before the first; `unseen` names what it could not see."""

    def __init__(
        self,
        observer: Observer,
        verifier: Verifier,
        publisher: Publisher,
        status: StatusBoard,
        *,
        every_s: float,
        verify_every_s: float,
        after_look: AfterLook,
    ) -> None:
        self._status = status
        self._after_look = after_look
        self._observer = observer
        self._verifier = verifier
        self._publisher = publisher
        self._every_s = every_s
        self._verify_every_s = verify_every_s
        self._past = Past()
        self._suspicious = asyncio.Event()  # something that only the books can tell more about
        self.board = AlarmBoard()
        self.looked_at: datetime | None = None
        self.unseen: tuple[str, ...] = ()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            working = [
                tasks.create_task(self._look_on(), name="alarms-look"),
                tasks.create_task(self._verify_on(), name="alarms-verify"),
            ]
            await stop.wait()
            for task in working:
                task.cancel()

    async def look(self) -> None:
        """One look, and what follows from it."""
        look = await self._observer.look(self._publisher.live_routes)
        now = datetime.now(UTC)
        reports = self._status.reports(now)
        look.stale = stale_replicas(reports, self._publisher.live)
        look.engines_down = engines_down(report for report in reports if is_fresh(report))
        before, up = self._past.before, self.board.severities
        found = conditions(look, self._past, self._verifier.last, up)
        self.board.take(found, lambda key: covers(look, before, key), now)
        if any(key[0] is Kind.STREAM_DAMAGED and key not in up for key in found):
            self._suspicious.set()
        self._past.remember(look)
        self.looked_at = datetime.now(UTC)
        self.unseen = look.unseen if not look.silent else ("the broker",)
        await self._after_look(self.board, lambda key: covers(look, before, key))

    async def _look_on(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # the one handler of a task: whoever watches must not fall over what it sees
                log.exception("alarms.look_failed")
            await asyncio.sleep(_spread(self._every_s))

    async def _verify_on(self) -> None:
        await self._pause_or_suspicion(min(_SOON_S, self._verify_every_s))
        while True:
            pause_s = self._verify_every_s
            try:
                found = await self._verifier.verify_by_itself(PROOF_GRACE_S)
                if found.count or found.undecided:
                    pause_s = min(pause_s, _AGAIN_S)
            except (ApiError, TransientError, SQLAlchemyError, OSError) as error:
                log.warning("ledger.verification_postponed", reason=getattr(error, "reason", "") or str(error)[:500])
                pause_s = min(pause_s, _AGAIN_S)
            except Exception:  # as above
                log.exception("ledger.verification_failed")
            await self._pause_or_suspicion(pause_s)

    async def _pause_or_suspicion(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_spread(seconds)):
                await self._suspicious.wait()
        self._suspicious.clear()


def _spread(seconds: float) -> float:
    return seconds * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311  (spreads load, guards nothing)
