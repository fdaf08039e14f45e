"""What is measured of each system, and with how many messages.

Each mix: a warm-up that also tells how fast the system is, then full load, then half of the rate that full load reached. The small mix once
more with a connection a message, and with 200 connections. A measurement lasts about as long for a slow system as for a fast one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import msgspec

from bench.measure import Load, Measured

# enough to fill every connection, and few enough for the slowest; large messages are a hundred times as big
_WARM_UP = {"small": 200, "mixed": 200, "large": 10}
_FEWEST = {"small": 100, "mixed": 100, "large": 20}
_SHAPES = ((20, 1), (200, 10))  # connections, messages a connection
_SHAPED_MIX = "small"
_STANDARD = (20, 10)


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds` a measurement should take; `messages` sets their number instead. `shapes`: the other numbers of connections too."""

    mixes: tuple[str, ...]
    seconds: float = 10.0
    messages: int | None = None
    shapes: bool = True


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement and what it was for: `full` or `half` load."""

    load: str
    measured: Measured

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What makes it comparable with another system's."""
        return self.measured.mix, self.load, self.measured.connections, self.measured.per_connection

    @property
    def standard(self) -> bool:
        return (self.measured.connections, self.measured.per_connection) == _STANDARD


def carry_out(plan: Plan, send: Callable[[Load], Measured], *, only_full: bool = False) -> Iterator[Entry]:
    """Send what the plan says, one load after another."""
    first = 0

    def sent(load: Load) -> Measured:
        nonlocal first
        measured = send(replace(load, first=first))
        first += load.messages
        return measured

    for mix in plan.mixes:
        rate = sent(Load(mix, _WARM_UP[mix])).messages_per_s
        full = sent(Load(mix, _messages(plan, mix, rate)))
        yield Entry(load="full", measured=full)
        if only_full:
            continue
        half = full.messages_per_s / 2
        yield Entry(load="half", measured=sent(Load(mix, _messages(plan, mix, half), rate=half)))
        if plan.shapes and mix == _SHAPED_MIX:
            for connections, per_connection in _SHAPES:
                messages = _messages(plan, mix, full.messages_per_s)
                yield Entry(load="full", measured=sent(Load(mix, messages, connections, per_connection)))


def _messages(plan: Plan, mix: str, rate: float) -> int:
    return plan.messages or max(_FEWEST[mix], round(rate * plan.seconds))
