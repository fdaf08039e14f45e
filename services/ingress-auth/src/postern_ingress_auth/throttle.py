"""How failed logins slow down whoever makes them: by client network and by user name. Pure: it is given `now` in seconds, and the rules.

Each failure doubles the delay of the next answer. After a limit nobody is heard for a while, twice as long with each failure after that.
As the rules are by default, a failure never locks a user out who gives the right password (that would let anybody lock out anybody).
Fails open: at most 20,000 networks and names are remembered, the oldest are forgotten first.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from postern_core.accounts import FailuresOf
from postern_core.policy import Throttling

_REMEMBERED: Final = 20_000
_MOST_DOUBLINGS: Final = 64


def network_key(network: str) -> str:
    return f"address:{network}"


def name_key(name: str) -> str:
    return f"user:{name.casefold()}"


@dataclass(slots=True)
class Failures:
    """Of one network or name."""

    count: int
    last: float
    blocked_until: float = -math.inf
    exists: bool = True  # False: a name that no user has


@dataclass(frozen=True, slots=True)
class Slowed:
    """What a failure costs: for how long to hold the answer back, and which keys are from now on slowed down as far as it goes, or blocked."""

    delay_s: float
    told: tuple[str, ...] = ()


class Throttle:
    """Counts failures."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, Failures] = OrderedDict()

    def is_blocked(self, network: str, name: str, now: float) -> bool:
        """Whether an attempt is turned away unheard."""
        return any(
            (known := self._failures.get(key)) is not None and known.blocked_until > now
            for key in (network_key(network), name_key(name))
        )

    def failed(self, network: str, name: str, now: float, rules: Throttling, *, exists: bool = True) -> Slowed:
        """Note a failure."""
        delay_s, told = 0.0, []
        limits = ((network_key(network), rules.network_limit, True), (name_key(name), rules.user_limit, exists))
        for key, limit, key_exists in limits:
            failures = self._add(key, now, rules, exists=key_exists)
            delay_s = max(delay_s, own_s := _delay_s(failures.count, rules))
            if limit is not None and failures.count >= limit:
                doublings = min(failures.count - limit, _MOST_DOUBLINGS)
                failures.blocked_until = now + min(rules.first_block_s * 2.0**doublings, rules.longest_block_s)
                told.append(key)
            elif rules.first_delay_s and own_s >= rules.longest_delay_s > _delay_s(failures.count - 1, rules):
                told.append(key)
        return Slowed(delay_s, tuple(told))

    def succeeded(self, network: str, name: str) -> None:
        """The user is here: what came before were slips. The network keeps its count, others may guess from it."""
        self._failures.pop(name_key(name), None)
        known = self._failures.get(network_key(network))
        if known is not None and known.count > 1:
            known.count -= 1
        else:
            self._failures.pop(network_key(network), None)

    def clear(self, key: str) -> int:
        """Forget a key, all of them for "". How many there were."""
        if not key:
            cleared = len(self._failures)
            self._failures.clear()
            return cleared
        return 0 if self._failures.pop(key, None) is None else 1

    def merge(self, theirs: FailuresOf, now: float) -> None:
        """What another replica knows: the larger counts, since both may have seen the same failures."""
        known = self._failures.setdefault(theirs.key, Failures(0, -math.inf, exists=theirs.exists))
        known.count = max(known.count, theirs.count)
        known.last = max(known.last, now - theirs.age_s)
        known.exists = known.exists or theirs.exists
        if theirs.blocked_s > 0:
            known.blocked_until = max(known.blocked_until, now + theirs.blocked_s)
        self._forget_the_oldest()

    def known(self, now: float, rules: Throttling) -> Iterator[FailuresOf]:
        """All that counts still."""
        for key in [key for key, failures in self._failures.items() if _is_over(failures, now, rules)]:
            del self._failures[key]
        for key, failures in self._failures.items():
            blocked_s = max(failures.blocked_until - now, 0.0)
            yield FailuresOf(key, failures.count, max(now - failures.last, 0.0), blocked_s, failures.exists)

    def _add(self, key: str, now: float, rules: Throttling, *, exists: bool) -> Failures:
        failures = self._failures.get(key)
        if failures is None or _is_over(failures, now, rules):
            failures = self._failures[key] = Failures(0, now, exists=exists)
        failures.count += 1
        failures.last = max(failures.last, now)
        failures.exists = failures.exists or exists
        self._failures.move_to_end(key)
        self._forget_the_oldest()
        return failures

    def _forget_the_oldest(self) -> None:
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)


def _delay_s(count: int, rules: Throttling) -> float:
    return min(rules.first_delay_s * 2.0 ** min(count - 1, _MOST_DOUBLINGS), rules.longest_delay_s)


def _is_over(failures: Failures, now: float, rules: Throttling) -> bool:
    return max(failures.last, failures.blocked_until) + rules.forget_s <= now
