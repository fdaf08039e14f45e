"""A schedule of faults, made from a seed: the same seed gives the same faults at the same times."""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping
from dataclasses import dataclass

SERVICES = ("ingress-anon", "ingress-auth", "screener", "delivery", "api")


class Kind(enum.StrEnum):
    """What goes wrong."""

    KILL = "kill -9"
    KILL_SEVERAL = "kill -9 of several"
    PAUSE = "paused"  # SIGSTOP and later SIGCONT; containers are frozen
    BROKER_KILL = "broker kill -9"
    BROKER_RESTART = "broker restarted"
    BROKER_PAUSE = "broker paused"
    DATABASE_KILL = "PostgreSQL kill -9"
    DATABASE_RESTART = "PostgreSQL restarted"
    DATABASE_PAUSE = "PostgreSQL paused"
    NETWORK_CUT = "cut off from a network"
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


@dataclass(frozen=True, slots=True)
class Menu:
    """What can go wrong with a stack, and whom it can befall. The order counts: it is part of what a seed means."""

    # how likely, and for how many seconds (lower and upper bound; 0 for what is over at once)
    character: Mapping[Kind, tuple[int, float, float]]
    processes: tuple[str, ...]
    together: tuple[str, ...]  # of which several may die at once
    broker: str
    database: str = ""
    cuts: tuple[tuple[str, str], ...] = ()  # who can be cut off from which network
    recovery_s: float = 0.0  # what it takes until everything answers again, before the next fault is due


EMBEDDED = Menu(
    {
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
    },
    processes=SERVICES,
    together=SERVICES,
    broker="nats-server",
)

_REPLICAS = ("ingress-anon-1", "ingress-auth-1", "screener-1", "screener-2", "delivery-1", "delivery-2", "api-1")
COMPOSE = Menu(
    {
        Kind.KILL: (4, 0, 0),
        Kind.KILL_SEVERAL: (3, 0, 0),
        Kind.PAUSE: (3, 1, 6),
        Kind.BROKER_KILL: (3, 0, 0),
        Kind.BROKER_RESTART: (1, 0, 0),
        Kind.BROKER_PAUSE: (2, 1, 5),
        Kind.DATABASE_KILL: (2, 0, 0),
        Kind.DATABASE_RESTART: (1, 0, 0),
        Kind.DATABASE_PAUSE: (2, 1, 6),
        Kind.NETWORK_CUT: (4, 1, 8),
        Kind.SMART_HOST_DOWN: (2, 1, 5),
        Kind.POLICY_CHANGE: (1, 0, 0),
        Kind.ROLLING_RESTART: (1, 0, 0),
    },
    processes=_REPLICAS,
    together=(*_REPLICAS, "nats-1", "postgres-1"),
    broker="nats-1",
    database="postgres-1",
    cuts=(
        *((replica, "bus") for replica in _REPLICAS),
        ("nats-1", "bus"),
        ("postgres-1", "database"),
        *((replica, "database") for replica in ("delivery-1", "delivery-2", "api-1")),
        *((replica, "edge") for replica in ("delivery-1", "delivery-2", "demo-smart-host-1")),
    ),
    recovery_s=6.0,
)


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


def plan(seed: int, seconds: float, menu: Menu = EMBEDDED, *, mean_gap_s: float = 4.0) -> tuple[PlannedFault, ...]:
    """Faults for a run of `seconds`, one after another; the last one is over before the load ends."""
    source = random.Random(seed)
    kinds = list(menu.character)
    weights = [menu.character[kind][0] for kind in kinds]
    faults: list[PlannedFault] = []
    at_s = 2.0
    while True:
        at_s += source.expovariate(1 / mean_gap_s)
        kind = source.choices(kinds, weights)[0]
        _, least_s, most_s = menu.character[kind]
        for_s = source.uniform(least_s, most_s) if most_s else 0.0
        if at_s + for_s > seconds - 2:
            return tuple(faults)
        faults.append(PlannedFault(at_s, kind, _targets(source, kind, menu), for_s))
        at_s += for_s + menu.recovery_s


def _targets(source: random.Random, kind: Kind, menu: Menu) -> tuple[str, ...]:
    match kind:
        case Kind.KILL | Kind.PAUSE:
            return (source.choice(menu.processes),)
        case Kind.KILL_SEVERAL:
            return tuple(sorted(source.sample(menu.together, source.randint(2, 4))))
        case Kind.ROLLING_RESTART:
            return menu.processes
        case Kind.BROKER_KILL | Kind.BROKER_RESTART | Kind.BROKER_PAUSE:
            return (menu.broker,)
        case Kind.DATABASE_KILL | Kind.DATABASE_RESTART | Kind.DATABASE_PAUSE:
            return (menu.database,)
        case Kind.NETWORK_CUT:
            return source.choice(menu.cuts)
        case _:
            return ()
