"""Deadlines that hardly ever end anything: one timer of the loop for all of them, set to the earliest.

A timer for each costs more than the rest of a time-out, and an attempt of some milliseconds has an hour.
"""

from __future__ import annotations

import asyncio


class Deadlines:
    """Ends time-outs that were made without a moment of their own, `asyncio.timeout(None)`, when their time has come."""

    def __init__(self) -> None:
        self._open: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def watch(self, timeout: asyncio.Timeout, at: float) -> None:
        """`timeout` expires when the loop's clock passes `at`, unless it is let go of before."""
        self._open[timeout] = at
        if self._timer is None or at < self._timer_at:
            self._set_timer(at)

    def let_go(self, timeout: asyncio.Timeout) -> None:
        """It is over, or nearly so."""
        self._open.pop(timeout, None)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = asyncio.get_running_loop().call_at(at, self._look), at

    def _look(self) -> None:
        """Those whose time has come expire; the timer goes on to the next one, if any is left."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for timeout in [timeout for timeout, at in self._open.items() if at <= now]:
            self.let_go(timeout)
            timeout.reschedule(now)
        if self._open:
            self._set_timer(min(self._open.values()))
