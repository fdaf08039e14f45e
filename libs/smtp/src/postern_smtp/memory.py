"""How much message data all sessions of a gate hold, and may hold. Pure: it is given `now` in seconds.

Over the limit somebody has to let go: his message is read to its end, not kept, and answered with 452 4.3.1. That is who has held most for
longest (octets times seconds), once he had some seconds to bring his message; else who came last. So a client that sends much and then
stalls makes room for those that send their message, and not the other way round. What is being stored counts and is never let go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

_GRACE_S: Final = 10.0
_FULL_SHARE: Final = 0.9  # from which on it is better not to begin


class Holder(Protocol):
    """A session whose message is coming in."""

    def let_go(self) -> None:
        """Keep nothing of the message."""
        ...


@dataclass(slots=True)
class _Hold:
    octets: int
    since: float


class Memory:
    """See the module. `limit_bytes` may be exceeded by what is being stored."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._held: dict[Holder, _Hold] = {}

    def hold(self, holder: Holder, octets: int, now: float) -> None:
        """`holder` holds this much by now. Makes whoever has to let go when that is too much, `holder` himself as the last."""
        hold = self._held.setdefault(holder, _Hold(0, now))
        self.used_bytes += octets - hold.octets
        hold.octets = octets
        while self.used_bytes > self.limit_bytes and hold.octets:
            loser = self._loser(holder, now)
            loser.let_go()
            self.used_bytes -= self._held[loser].octets
            self._held[loser].octets = 0

    def release(self, holder: Holder) -> None:
        """`holder` holds nothing any more."""
        hold = self._held.pop(holder, None)
        if hold is not None:
            self.used_bytes -= hold.octets

    def storing(self, octets: int) -> None:
        """A message of this size is being stored, or when negative, is no more."""
        self.used_bytes += octets

    def is_full(self, now: float) -> bool:
        """Whether a message that begins now would likely have to let go, or make somebody let go who has just begun, too."""
        most = _FULL_SHARE * self.limit_bytes
        if self.used_bytes <= most:
            return False
        return self.used_bytes - sum(hold.octets for hold in self._held.values() if now - hold.since > _GRACE_S) > most

    def _loser(self, newest: Holder, now: float) -> Holder:
        stalled = {holder: hold for holder, hold in self._held.items() if hold.octets and now - hold.since > _GRACE_S}
        return max(stalled, key=lambda holder: stalled[holder].octets * (now - stalled[holder].since), default=newest)
