"""Limits for all that is opened of one message. Who spends more than there is gets a LimitError, now and at each further try."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from postern_screener.contents.entry import LimitError, ObstacleKind

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is opened of one message."""

    depth: int = 5  # things inside things: a tar in a gz counts as two
    entries: int = 2000
    expanded_bytes: int = 200 * _MIB
    ratio: int = 200  # expanded to packed, over `innocent_bytes`
    innocent_bytes: int = 10 * _MIB  # a log file or a bitmap may shrink to a thousandth; a small one does no harm
    cpu_s: float = 2.0


class Budget:
    """What is left. `packed_bytes`: the size of what all of it is unpacked from."""

    def __init__(self, packed_bytes: int, limits: Limits | None = None, clock: Callable[[], float] = time.thread_time) -> None:
        self.limits = limits or Limits()
        by_ratio = max(self.limits.innocent_bytes, self.limits.ratio * packed_bytes)
        self.bytes_left = min(self.limits.expanded_bytes, by_ratio)
        self._allowed = self.bytes_left
        self._entries = 0
        self._clock = clock
        # of this thread's time, not of the clock on the wall: a machine that is busy must not make innocent mail look like a bomb
        self._ends_at = clock() + self.limits.cpu_s
        self._spent: LimitError | None = None

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._ends_at - self._clock())

    def charge(self, seconds: float) -> None:
        """Somebody else worked so long for it: a child."""
        self._ends_at -= seconds

    def entry(self) -> None:
        """One more entry is looked at."""
        self._entries += 1
        if self._entries > self.limits.entries:
            self._stop(ObstacleKind.ENTRIES, f"more than {self.limits.entries} entries")
        self.check()

    def spend(self, expanded_bytes: int) -> None:
        """So many bytes came out."""
        self.bytes_left -= expanded_bytes
        if self.bytes_left < 0:
            self._stop(ObstacleKind.BYTES, f"expands to more than {self._allowed} bytes")
        self.check()

    def check(self) -> None:
        """Is there time left?"""
        if self._spent is not None:
            raise self._spent
        if self._clock() > self._ends_at:
            self.out_of_time()

    def out_of_time(self) -> None:
        """Somebody else found that it takes too long."""
        self._stop(ObstacleKind.TIME, f"takes more than {self.limits.cpu_s:g} s to open")

    def _stop(self, kind: ObstacleKind, reason: str) -> None:
        if self._spent is None:
            self._spent = LimitError(kind, reason)
        raise self._spent
