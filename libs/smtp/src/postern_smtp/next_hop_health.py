"""What is known about the next hops of a route: whom to try first, and how long to wait for it while another one is left.

They are tried in their order. One that is silent goes last: while somebody has waited for it for `_SLOW_S` already, and, after somebody waited
in vain, for a time that doubles with each further failure. When that is over, one connection goes and looks; the others keep
to those that answer until it has a session and the reply to its MAIL.
As long as nobody else was asked, none gets more than `PATIENCE_S` for its session, nor for its reply to MAIL: RFC 5321 section 4.5.3.2 grants five
minutes, and whoever needs them gets them when no other next hop has answered.
Pure: moments are given, in seconds of the loop's clock. Compare Postfix: smtp_connect_timeout, minimal_backoff_time (dead destinations).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from postern_core.policy import NextHop

if TYPE_CHECKING:
    from postern_smtp.client_types import ConnectionFailed

PATIENCE_S: Final = 30.0
_SLOW_S: Final = 5.0
_AVOID_S: Final = 60.0  # after the first failure
_AVOID_AT_MOST_S: Final = 600.0


class NextHopHealth:
    """Of one route, shared by all of its connections."""

    def __init__(self, next_hops: Iterable[NextHop], *, patience_s: float = PATIENCE_S) -> None:
        self.next_hops: Final = tuple(next_hops)
        self.patience_s: Final = patience_s if len(self.next_hops) > 1 else None  # None: as long as the client waits by itself
        self._failures: dict[NextHop, int] = {}  # one after another; absent when it answers
        self._avoid_until: dict[NextHop, float] = {}
        self._waits: dict[NextHop, list[float]] = {hop: [] for hop in self.next_hops}  # since when, the oldest first

    def best(self, among: Iterable[NextHop], now: float) -> NextHop:
        """The first of `among` that may be expected to answer; the first when there is none."""
        return min(among, key=lambda hop: self._goes_last(hop, now))

    @contextmanager
    def waiting(self, hop: NextHop, now: float) -> Iterator[None]:
        """Somebody waits for a session since `now`."""
        waits = self._waits[hop]
        waits.append(now)
        try:
            yield
        finally:
            waits.remove(now)

    def silent(self, hop: NextHop, now: float) -> float:
        """Somebody waited in vain. Returns for how many seconds it is avoided from now on, 0 when it was already."""
        if now < self._avoid_until.get(hop, now):
            return 0.0  # one of many that waited together
        self._failures[hop] = failures = self._failures.get(hop, 0) + 1
        seconds = min(_AVOID_S * 2.0 ** (failures - 1), _AVOID_AT_MOST_S)
        self._avoid_until[hop] = now + seconds
        return seconds

    def answered(self, hop: NextHop) -> None:
        """It granted a session, and answered in it."""
        self._failures.pop(hop, None)
        self._avoid_until.pop(hop, None)

    def forget(self) -> None:
        """Somebody wants them tried now."""
        self._failures.clear()
        self._avoid_until.clear()

    def _goes_last(self, hop: NextHop, now: float) -> bool:
        waits = self._waits[hop]
        if now < self._avoid_until.get(hop, now):
            return True
        return bool(waits) and (hop in self._failures or now - waits[0] > _SLOW_S)


class Search:
    """The next hops for one message, one after another: each once in a hurry, then those that were hurried once more with all their time."""

    def __init__(self, health: NextHopHealth) -> None:
        self._health = health
        self._left = list(health.next_hops)
        self._hurried: list[NextHop] = []
        self._patient = False
        self.missed: ConnectionFailed | None = None  # of a next hop that could not be asked whether it would do

    @property
    def patience_s(self) -> float | None:
        """For the session, and for the reply to MAIL; None: as long as the client waits by itself."""
        return None if self._patient else self._health.patience_s

    @property
    def is_last(self) -> bool:
        """Whether nobody else is left, but for the one at hand should it be hurried."""
        return not self._left and not self._hurried

    def take(self, now: float) -> NextHop | None:
        """Whom to try; None when all were."""
        if not self._left:
            self._left, self._hurried, self._patient = self._hurried, [], True
        if not self._left:
            return None
        hop = self._health.best(self._left, now)
        self._left.remove(hop)
        return hop

    def hurried(self, hop: NextHop) -> None:
        """It did not get all its time: try it once more in the end."""
        self._hurried.append(hop)
