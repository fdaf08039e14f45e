"""Pulls from a durable consumer like `Consumer`, for a reader that settles many messages at once: no task and no waiting for each of them.

Whoever takes a message settles it (`ack_unconfirmed` or `retry`) and then calls `done`. Nothing is let go because of a fault: what was taken and
never settled comes again after the ack-wait.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Final

import structlog

from postern_core.bus.connection import Bus
from postern_core.bus.consumer import Consumer
from postern_core.bus.delivered import HAND_BACK_S, Delivered

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_WATCHED: Final = 10  # messages of an open pull: it cannot be called back, so that many would go on coming one by one

Take = Callable[[Delivered], None]


class _Mode(enum.Enum):
    WATCHING = "watching"  # an open pull brings messages as they come
    RESTING = "resting"
    SWEEPING = "sweeping"  # all that there is is asked for
    SWEPT = "swept"  # and in hand


class Collector(Consumer):
    """See the module. `take` is called for each message as soon as it is read; it must neither block nor raise. At most `concurrency` are out at
    any time."""

    def __init__(self, bus: Bus, stream: str, consumer: str, take: Take, *, concurrency: int) -> None:
        super().__init__(bus, stream, consumer, self._handed_back, concurrency=concurrency)
        self._take = take
        self._taken: set[Delivered] = set()
        self._emptied = asyncio.Event()
        self._mode = _Mode.WATCHING
        self._timer: asyncio.TimerHandle | None = None

    def done(self, delivered: Delivered) -> None:
        """It is settled."""
        if delivered in self._taken:
            self._taken.discard(delivered)
            self._members -= delivered.members
        if not self._taken:
            self._emptied.set()
        if self._requested == 0:
            self._wake.set()

    def watch(self) -> None:
        """Take messages as they come: how it begins."""
        self._change(_Mode.WATCHING)

    def sweep(self, after_s: float) -> None:
        """Ask for nothing for so long, and then once for all that there is. A rest that has begun is not begun anew."""
        if self._mode is _Mode.RESTING and after_s:
            return
        self._change(_Mode.RESTING)
        self._timer = asyncio.get_running_loop().call_later(after_s, self._change, _Mode.SWEEPING)

    def _change(self, mode: _Mode) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._mode = mode
        self._wake.set()

    async def _request(self, inbox: str, batch: int) -> None:
        if self._mode is _Mode.SWEEPING:
            self._mode = _Mode.SWEPT
            await self._ask(inbox, batch, no_wait=True)
        elif self._mode is _Mode.WATCHING or (self._mode is _Mode.SWEPT and not self._taken):
            self._mode = _Mode.WATCHING
            await super()._request(inbox, min(batch, _WATCHED))

    def _begin(self, delivered: Delivered) -> None:
        if self._stopping:
            super()._begin(delivered)  # hands it back
            return
        self._taken.add(delivered)
        self._count(delivered)
        self._emptied.clear()
        self._take(delivered)

    async def _handed_back(self, delivered: Delivered) -> None:
        await delivered.retry(HAND_BACK_S)

    async def _drain(self, drain_s: float) -> None:
        if self._taken:
            try:
                async with asyncio.timeout(drain_s):
                    await self._emptied.wait()
            except TimeoutError:
                log.warning("bus.drain_interrupted", consumer=self.name, taken=len(self._taken))
                for delivered in tuple(self._taken):
                    if not delivered.settled:
                        await delivered.retry(HAND_BACK_S)  # another replica need not wait for the end of the ack-wait
        await super()._drain(drain_s)
