"""Ends the process when an inspection overruns its deadline, also when it hangs in native code with the interpreter lock held.

The timer is the C-level one of `faulthandler`: it prints where every thread stands and exits; the broker then delivers the message again,
and it is inspected in a child process that may die alone. Arming starts a thread, so one arming serves all inspections that
begin within a second: the process ends between `limit_s` and `limit_s + 1` after the start of the one that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Final

_SLACK_S: Final = 1.0
_LEAST_S: Final = 2.0  # below this, a loop that is late to disarm an idle timer would end an innocent process
_CHECK_EVERY_S: Final = 0.5
_LAST_S: Final = 1.5  # for an inspection that is still running when everything else has ended
_STANDARD_ERROR: Final = 2


class Watchdog:
    """One for each process: there is only one such timer. `guard` may be used from several threads at once."""

    def __init__(self, *, least_s: float = _LEAST_S) -> None:
        self._least_s = least_s
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._deadlines: dict[int, float] = {}  # running inspections, monotonic seconds
        self._armed_for: float | None = None
        self._ending = False

    @contextlib.contextmanager
    def guard(self, limit_s: float) -> Iterator[None]:
        """The process ends unless the block is left within `limit_s`, two seconds at least (and at most a second more)."""
        number = next(self._numbers)
        with self._lock:
            self._deadlines[number] = time.monotonic() + max(limit_s, self._least_s)
            self._adjust()
        try:
            yield
        finally:
            with self._lock:
                del self._deadlines[number]
                if self._deadlines:
                    self._adjust()
                elif self._ending:
                    self._disarm()

    async def run(self, stop: asyncio.Event) -> None:
        """Disarm the timer soon after the last inspection ended; until `stop`. Then the process may end, and an inspection in a thread
        that is not done (its message goes to another worker) must not hold that up: it gets `_LAST_S` seconds."""
        try:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CHECK_EVERY_S):
                        await stop.wait()
                self._disarm_when_idle()
        finally:
            self._disarm_when_idle()
            self._end_soon()

    @property
    def armed(self) -> bool:
        return self._armed_for is not None

    def _adjust(self) -> None:
        if self._ending:
            return
        earliest = min(self._deadlines.values())
        if self._armed_for is not None and earliest <= self._armed_for <= earliest + _SLACK_S:
            return
        self._armed_for = earliest + _SLACK_S
        # never below what faulthandler takes: a guard that is already late ends the process at once
        faulthandler.dump_traceback_later(max(self._armed_for - time.monotonic(), 0.001), exit=True, file=_STANDARD_ERROR)

    def _end_soon(self) -> None:
        with self._lock:
            self._ending = True
            if self._deadlines:
                self._armed_for = time.monotonic() + _LAST_S
                faulthandler.dump_traceback_later(_LAST_S, exit=True, file=_STANDARD_ERROR)

    def _disarm_when_idle(self) -> None:
        with self._lock:
            if not self._deadlines:
                self._disarm()

    def _disarm(self) -> None:
        if self._armed_for is not None:
            self._armed_for = None
            faulthandler.cancel_dump_traceback_later()
