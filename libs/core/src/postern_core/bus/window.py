"""How much the broker may have on its way to one of our connections: it hangs up on a client for which more than its `max_pending` waits.

A client that is busy for a second, or far away, finds all of that waiting which it has asked for. So what we ask for is bounded in octets, for all consumers
of a connection together, below what the broker allows when it is told nothing else (64 MiB; a broker that allows less is refused):

    pulls    every consumer names a share (`max_bytes`) in its pull; the shares of all of them are `PULLED_BYTES`
    turns    an entry over its consumer's share is pulled alone, whatever its size, by one consumer at a time
    reads    of streams that hold mail, as many at once as fit into `READ_BYTES`
    the rest policy that is told of, lists of subjects, answers: one or two at a time, and small

Sources: JetStream pull API (ADR-13), nats-server's configuration (`max_pending`, `max_payload`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from postern_core.bus.topology import ARCHIVE, BADMAIL, BODIES, DEFERRED, MIB, QUARANTINE

LEAST_PENDING_BYTES: Final = 64_000_000  # of the broker's `max_pending`, under which it is refused
PULLED_BYTES: Final = 20 * MIB
READ_BYTES: Final = 24 * MIB  # a turn is of the broker's `max_payload` at most, 8 MiB; so are a policy, and a page of subjects
HEAD_BYTES: Final = MIB  # of a job to a thousand recipients, which has each of them twice
MOST_HEAD_BYTES: Final = 4 * MIB  # gates take no recipients beyond half of that

HOLDING_MAIL: Final = frozenset({DEFERRED, QUARANTINE, BADMAIL, BODIES, ARCHIVE})  # of the streams that are read by request

_LEAST_SHARE_BYTES: Final = 64 * 1024  # small mail goes on by many at a time, with hundreds of routes, too


def reads_at_once(inline_limit_bytes: int) -> int:
    """How many messages may be read from streams that hold mail at the same time."""
    return max(READ_BYTES // (inline_limit_bytes + HEAD_BYTES), 1)


class Window:
    """What the consumers of one connection share. See the module."""

    def __init__(self) -> None:
        self._consumers: set[object] = set()
        self._turn_of: object | None = None
        self._waiting: deque[tuple[object, Callable[[], None]]] = deque()

    def join(self, consumer: object) -> None:
        self._consumers.add(consumer)

    def leave(self, consumer: object) -> None:
        self._consumers.discard(consumer)
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not consumer)
        self.end_turn(consumer)

    @property
    def share_bytes(self) -> int:
        """That one pull may name."""
        return max(PULLED_BYTES // max(len(self._consumers), 1), _LEAST_SHARE_BYTES)

    def take_turn(self, consumer: object, wake: Callable[[], None]) -> bool:
        """Whether `consumer` may pull one entry of any size now. If not, `wake` is called when it is worth another try."""
        if self._turn_of is None:
            self._turn_of = consumer
        elif self._turn_of is not consumer and all(waiting is not consumer for waiting, _ in self._waiting):
            self._waiting.append((consumer, wake))
        return self._turn_of is consumer

    def end_turn(self, consumer: object) -> None:
        """It has its entry, or wants none; harmless when it had no turn."""
        if self._turn_of is not consumer:
            return
        self._turn_of = None
        if self._waiting:
            self._turn_of, wake = self._waiting.popleft()
            wake()
