"""Circuit breaker: an engine that fails again and again is left alone for a while, so that mail does not wait for it in vain.

    closed ──`failures` in a row──▶ open ──pause over, or a sign of life──▶ half open ──success──▶ closed
                                     ▲◀───────────────failure, with twice the pause─────┘
Half open lets one question through at a time. Given the time, keeps no clock. Not to be asked is a failure, with the policy for failures.
"""

from __future__ import annotations

import enum
from typing import Final

FAILURES: Final = 5
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 60.0


class State(enum.Enum):
    CLOSED = "closed"  # it is asked
    OPEN = "open"  # it is not asked
    HALF_OPEN = "half-open"  # one question is on its way, to see


class Breaker:
    """`now` is monotonic, in seconds. Each `allows` that is True is followed by one of `succeeded`, `failed` and `forgotten`."""

    def __init__(self) -> None:
        self.state = State.CLOSED
        self._failures = 0  # in a row
        self._pause_s = FIRST_PAUSE_S
        self._until = 0.0  # of the pause

    def allows(self, now: float) -> bool:
        """Whether a question may go out."""
        if self.state is State.OPEN and now >= self._until:
            self.state = State.HALF_OPEN
            return True
        return self.state is State.CLOSED

    def succeeded(self) -> None:
        self.state, self._failures, self._pause_s = State.CLOSED, 0, FIRST_PAUSE_S

    def failed(self, now: float) -> None:
        self._failures += 1
        if self.state is State.HALF_OPEN:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        elif self.state is State.OPEN or self._failures < FAILURES:  # open: one that was on its way when it opened
            return
        self.state, self._until = State.OPEN, now + self._pause_s

    def forgotten(self) -> None:
        """A question was given up for a reason that is not the engine's."""
        if self.state is State.HALF_OPEN:
            self.state = State.OPEN  # the pause is over: the next one tries

    def sign_of_life(self) -> None:
        """It answers to its name: the next question need not wait for the end of the pause."""
        if self.state is State.OPEN:
            self._until = 0.0
