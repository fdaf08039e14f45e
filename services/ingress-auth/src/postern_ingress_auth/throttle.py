"""How failed logins slow down whoever makes them: by client address and by user name, for ten minutes. Pure: it is given `now` in seconds.

A failure never locks a user out who gives the right password (that would let anybody lock out anybody); it makes guessing slow. Only an
address with very many failures is turned away unheard. Fails open: at most 20,000 addresses and names are remembered, the oldest are
forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

WINDOW_S: Final = 600.0
_LONGEST_DELAY_S: Final = 16.0
_REMEMBERED: Final = 20_000


class Throttle:
    """Counts failures. `limit` is the number of an address's failures after which it is turned away."""

    def __init__(self, first_delay_s: float, limit: int) -> None:
        self._first_delay_s = first_delay_s
        self._limit = limit
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # key → count, time of the last

    def is_blocked(self, client_address: str, now: float) -> bool:
        """Whether this address is turned away unheard."""
        return self._count(f"a {client_address}", now) >= self._limit

    def failed(self, client_address: str, name: str, now: float) -> float:
        """Note a failure; returns for how many seconds to hold the answer back."""
        worst = max(self._add(f"a {client_address}", now), self._add(f"u {name.casefold()}", now))
        return min(self._first_delay_s * 2.0 ** min(worst - 1, 16), _LONGEST_DELAY_S)

    def succeeded(self, client_address: str, name: str) -> None:
        """The user is here: what came before were slips. The address keeps its count, others may guess from it."""
        self._failures.pop(f"u {name.casefold()}", None)
        count, last = self._failures.get(f"a {client_address}", (0, 0.0))
        if count > 1:
            self._failures[f"a {client_address}"] = (count - 1, last)
        else:
            self._failures.pop(f"a {client_address}", None)

    def _count(self, key: str, now: float) -> int:
        count, last = self._failures.get(key, (0, now))
        return count if now - last < WINDOW_S else 0

    def _add(self, key: str, now: float) -> int:
        count = self._count(key, now) + 1
        self._failures[key] = (count, now)
        self._failures.move_to_end(key)
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        return count
