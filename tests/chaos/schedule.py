"""A schedule of faults, made from a seed: the same seed gives the same faults at the same times."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

SERVICES = ("ingress-anon", "ingress-auth", "screener", "delivery", "api")


class Kind(enum.StrEnum):
    """What goes wrong."""

    KILL = "kill -9"
    KILL_SEVERAL = "kill -9 of several"
    PAUSE = "paused"  # SIGSTOP, later SIGCONT
    BROKER_KILL = "broker kill -9"
    BROKER_PAUSE = "broker paused"
    SMART_HOST_DOWN = "smart host down"
    SMART_HOST_SLOW = "smart host slow"
    SMART_HOST_421 = "smart host says 421"
    SMART_HOST_HANGS_UP = "smart host hangs up after the dot"
    SMART_HOST_FLAPS = "smart host up and down, many times a second"
    SMART_HOST_NEVER_GREETS = "smart host accepts connections and says nothing"
    SMART_HOST_SILENT_AT_MAIL = "smart host never answers MAIL"
    SMART_HOST_SILENT_AT_DOT = "smart host never answers the dot"
    POLICY_CHANGE = "policy changed and rolled back"
    ROLLING_RESTART = "rolling restart"


# how likely, and for how many seconds (lower and upper bound; 0 for what is over at once)
_CHARACTER: dict[Kind, tuple[int, float, float]] = {
    Kind.KILL: (6, 0, 0),
    Kind.KILL_SEVERAL: (2, 0, 0),
    Kind.PAUSE: (3, 1, 6),
    Kind.BROKER_KILL: (3, 0, 0),
    Kind.BROKER_PAUSE: (2, 1, 5),
    Kind.SMART_HOST_DOWN: (2, 2, 6),
    Kind.SMART_HOST_SLOW: (1, 2, 5),
    Kind.SMART_HOST_421: (2, 1, 4),
    Kind.SMART_HOST_HANGS_UP: (2, 1, 3),
    Kind.SMART_HOST_FLAPS: (2, 1, 3),
    Kind.SMART_HOST_NEVER_GREETS: (1, 2, 5),
    Kind.SMART_HOST_SILENT_AT_MAIL: (1, 2, 5),
    Kind.SMART_HOST_SILENT_AT_DOT: (1, 2, 5),
    Kind.POLICY_CHANGE: (2, 0, 0),
    Kind.ROLLING_RESTART: (1, 0, 0),
}


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault: when it begins (seconds from the start of the load), for how long, and to whom."""

    at_s: float
    kind: Kind
    targets: tuple[str, ...]
    for_s: float

    def __str__(self) -> str:
        duration = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.at_s:6.1f} s  {self.kind.value}{duration}  {' '.join(self.targets)}"


def plan(seed: int, seconds: float, *, mean_gap_s: float = 4.0) -> tuple[PlannedFault, ...]:
    """Faults for a run of `seconds`, one after another; the last one is over before the load ends."""
    source = random.Random(seed)
    kinds = list(_CHARACTER)
    weights = [_CHARACTER[kind][0] for kind in kinds]
    faults: list[PlannedFault] = []
    at_s = 2.0
    while True:
        at_s += source.expovariate(1 / mean_gap_s)
        kind = source.choices(kinds, weights)[0]
        _, least_s, most_s = _CHARACTER[kind]
        for_s = source.uniform(least_s, most_s) if most_s else 0.0
        if at_s + for_s > seconds - 2:
            return tuple(faults)
        faults.append(PlannedFault(at_s, kind, _targets(source, kind), for_s))
        at_s += for_s


def _targets(source: random.Random, kind: Kind) -> tuple[str, ...]:
    match kind:
        case Kind.KILL | Kind.PAUSE:
            return (source.choice(SERVICES),)
        case Kind.KILL_SEVERAL:
            return tuple(sorted(source.sample(SERVICES, source.randint(2, 4))))
        case Kind.ROLLING_RESTART:
            return SERVICES
        case Kind.BROKER_KILL | Kind.BROKER_PAUSE:
            return ("nats-server",)
        case _:
            return ()
