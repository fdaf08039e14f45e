"""Whether a gate turns mail away before it comes, because what it has taken cannot be stored fast enough. Pure: it is given `now` in seconds.

Two kinds of signs:
- Things as they stand: a message has been on its way to the broker for longer than it may take (`SLOW`), or message data fills the memory for it
  (`MEMORY`, memory.py). Nobody begins a message then, and nobody comes in. It ends by itself: storing has a time-out.
- What has been seen: the broker had no room (`FULL`), or took too long. Whether that is over only a message can tell: one transaction is let through
  after a pause, a second at first, twice as long each time, five seconds at most. The first message that was begun since and is stored in time ends
  it. Connections are let in as well meanwhile, ten a second, so that somebody can send that message.

Fails open: a sign that nobody sees lets mail come, and acceptance answers it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from postern_core.errors import Reply
from postern_smtp import replies
from postern_smtp.memory import Memory

SLOW_S: Final = 5.0
_OCTETS_A_SECOND: Final = 4 * 1024 * 1024  # a large message may take longer
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 5.0
_DOOR_EVERY_S: Final = 0.1


class Sign(enum.Enum):
    """Why mail is turned away; the value is what the notice is about."""

    SLOW = "storing is slow"
    FULL = "the broker is full"
    MEMORY = "memory for message data"


REPLIES: Final[Mapping[Sign, Reply]] = {
    Sign.SLOW: replies.TOO_SLOW,
    Sign.FULL: replies.FULL,
    Sign.MEMORY: replies.OUT_OF_MEMORY,
}


class Storing:
    """One message on its way to the broker."""

    __slots__ = ("begun_at", "late_at", "octets")

    def __init__(self, octets: int, now: float) -> None:
        self.octets = octets
        self.begun_at = now
        self.late_at = now + SLOW_S + octets / _OCTETS_A_SECOND


class Overload:
    """See the module."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._under_way: set[Storing] = set()
        self._late_from = float("inf")  # nothing that is under way is late before; looked up anew when that time has come
        self._seen: Sign | None = None
        self._seen_at = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._next_message = self._next_connection = 0.0

    def begin(self, octets: int, now: float) -> Storing:
        """A message of this size goes to the broker. `end` is to be told, whatever becomes of it."""
        storing = Storing(octets, now)
        self._memory.storing(octets)
        self._under_way.add(storing)
        self._late_from = min(self._late_from, storing.late_at)
        return storing

    def end(self, storing: Storing, reply: Reply | None, now: float) -> None:
        """It got this reply; None when there is none to tell."""
        self._memory.storing(-storing.octets)
        self._under_way.remove(storing)
        is_stored = reply is not None and reply.code == 250
        if reply is not None and (reply.code, reply.status) == (replies.FULL.code, replies.FULL.status):
            self._meet(Sign.FULL, now)
        elif now >= storing.late_at:
            self._meet(Sign.SLOW, now)
            if is_stored:  # the broker works: no need to wait for the next try
                self._next_message, self._pause_s = now, FIRST_PAUSE_S
        elif is_stored and storing.begun_at > self._seen_at:
            self._seen = None

    def standing(self, now: float) -> Sign | None:
        """Why nobody is to send a message now, whoever he is."""
        if now >= self._late_from:
            self._late_from = min((storing.late_at for storing in self._under_way), default=float("inf"))
            if now >= self._late_from:
                return Sign.SLOW
        return Sign.MEMORY if self._memory.is_full(now) else None

    def transaction_refusal(self, now: float) -> Sign | None:
        """Why the next transaction may not begin; when there is no reason, it is taken to begin."""
        standing = self.standing(now)
        if standing is not None or self._seen is None:
            return standing
        if now < self._next_message:
            return self._seen
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._next_message = now + self._pause_s
        return None

    def connection_refusal(self, now: float) -> Sign | None:
        """Why the next connection may not come in; when there is no reason, it is taken to come."""
        standing = self.standing(now)
        if standing is not None or self._seen is None:
            return standing
        if now < self._next_connection:
            return self._seen
        self._next_connection = now + _DOOR_EVERY_S
        return None

    def _meet(self, sign: Sign, now: float) -> None:
        if self._seen is None:
            self._pause_s = FIRST_PAUSE_S
            self._next_message = now + FIRST_PAUSE_S
            self._next_connection = now + FIRST_PAUSE_S
        self._seen, self._seen_at = sign, now
