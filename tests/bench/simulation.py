"""A small discrete-event simulation of the pipeline, fed with the CPU time that each service was measured to take for a message.

    python -m bench.simulation                                   # predicted and measured, for each full load in ../var/bench.json
    python -m bench.simulation --sizing [--write-docs]           # the table of docs/operate/sizing.md

Gate, screener, delivery, api, generator and sink are threads that do one thing at a time (Python, or one event loop); the broker has a thread a core. Whoever has
work waits for one of the cores and gets it for a quantum, in turn. Each stream has one disk operation under way at a time (`sync_interval: always`), which writes what waits for
it by then (group commit). Exit code 1 when a prediction is more than 15 % off for one of the mixes that sizes are told for (small, mixed).
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.report import decoded
from bench.service_times import PREDICTED_WITHIN, ServiceTimes, Visit, compared, steps
from postern_core.batch import MOST_MEMBERS

_SIZED = frozenset({"small", "mixed"})  # a large message goes by BODIES, chunk by chunk, which the steps do not know
_QUANTUM_MS = 1.0  # a message takes less of any service: only a core that is wanted is ever taken away


@dataclass(frozen=True, slots=True)
class Load:
    """`connections` send one message after another; or `rate` messages/s arrive, evenly, however the pipeline does."""

    messages: int
    connections: int = 20
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: times in milliseconds since the first message was begun."""

    begun: int
    accepted: int
    arrived: int
    last_arrival_ms: float
    end_ms: float  # with what is done behind the last arrival
    busy_ms: Mapping[str, float]  # CPU of each service
    latencies_ms: tuple[float, ...]  # begun to arrived, in order of size

    @property
    def messages_per_s(self) -> float:
        return self.begun * 1000 / self.last_arrival_ms

    def latency_ms(self, share: float) -> float:
        return self.latencies_ms[min(int(len(self.latencies_ms) * share), len(self.latencies_ms) - 1)]


@dataclass(slots=True)
class _Service:
    """Work that waits for this service, and how many of its threads have none."""

    idle: int
    waiting: deque[tuple[float, Callable[[], None]]] = field(default_factory=deque)


@dataclass(slots=True)
class _Disk:
    """What waits to be written to a stream."""

    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    is_busy: bool = False


@dataclass(slots=True)
class _Thread:
    service: str
    left_ms: float
    done: Callable[[], None]


class _Machine:
    """Cores that are shared in turn, disks that do one thing after another, and a clock in milliseconds."""

    def __init__(self, cores: float, threads: Mapping[str, int]) -> None:
        self.now = 0.0
        self.busy_ms: dict[str, float] = dict.fromkeys(threads, 0.0)
        self._whole = math.ceil(cores)
        self._speed = cores / self._whole  # 1.8 cores are two that others hold up a little
        self._free = self._whole
        self._services = {name: _Service(number) for name, number in threads.items()}
        self._runnable: deque[_Thread] = deque()
        self._disks: dict[str, _Disk] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, delay_ms: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_ms, next(self._numbers), what))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()

    def work(self, service: str, cpu_ms: float, done: Callable[[], None], *, ahead: bool) -> None:
        """`done` is called when a thread of `service` has spent so much CPU on it; `ahead` of what waits there."""
        own = self._services[service]
        if ahead:
            own.waiting.appendleft((cpu_ms, done))
        else:
            own.waiting.append((cpu_ms, done))
        self._wake(service, own)

    def write(self, stream: str, sync_ms: float, done: Callable[[], None]) -> None:
        """`done` is called when it is on disk."""
        disk = self._disks.setdefault(stream, _Disk())
        disk.waiting.append(done)
        if not disk.is_busy:
            self._sync(disk, sync_ms)

    def _sync(self, disk: _Disk, sync_ms: float) -> None:
        """What waits goes together (group commit)."""
        together = [disk.waiting.popleft() for _ in range(min(len(disk.waiting), MOST_MEMBERS))]
        disk.is_busy = True

        def synced() -> None:
            disk.is_busy = False
            for done in together:
                done()
            if disk.waiting and not disk.is_busy:
                self._sync(disk, sync_ms)

        self.after(sync_ms, synced)

    def _wake(self, service: str, own: _Service) -> None:
        while own.idle and own.waiting:
            own.idle -= 1
            self._runnable.append(_Thread(service, *own.waiting.popleft()))
        self._dispatch()

    def _dispatch(self) -> None:
        while self._free and self._runnable:
            self._free -= 1
            thread = self._runnable.popleft()
            slice_ms = min(thread.left_ms, _QUANTUM_MS)
            self.after(slice_ms / self._speed, self._ran(thread, slice_ms))

    def _ran(self, thread: _Thread, slice_ms: float) -> Callable[[], None]:
        def ended() -> None:
            self._free += 1
            self.busy_ms[thread.service] += slice_ms
            thread.left_ms -= slice_ms
            if thread.left_ms > 1e-9:
                self._runnable.append(thread)
                self._dispatch()
                return
            own = self._services[thread.service]
            own.idle += 1
            thread.done()
            self._wake(thread.service, own)

        return ended


def simulate(times: ServiceTimes, load: Load, *, cores: float, replicas: Mapping[str, int] | None = None) -> Outcome:
    """Run `load` through the pipeline on so many cores. `replicas`: processes of a service, one each unless said otherwise."""
    replicas = replicas or {}
    threads = {name: replicas.get(name, 1) for name in times.cpu_ms} | {"broker": math.ceil(cores)}
    if load.rate is not None:
        # both ends are as many as they have to be: what is asked is what Postern does
        threads |= {"generator": load.messages, "sink": load.messages}
    machine = _Machine(cores, threads)
    run = _Run(machine, times, load)
    run.start()
    machine.run()
    return Outcome(
        begun=run.begun,
        accepted=run.accepted,
        arrived=len(run.latencies),
        last_arrival_ms=run.last_arrival_ms,
        end_ms=machine.now,
        busy_ms=machine.busy_ms,
        latencies_ms=tuple(sorted(run.latencies)),
    )


class _Run:
    """The messages of one load on their way."""

    def __init__(self, machine: _Machine, times: ServiceTimes, load: Load) -> None:
        self._machine, self._load = machine, load
        self._steps = tuple(steps(times))
        self._sync_ms = times.sync_ms
        self.begun = self.accepted = 0
        self.last_arrival_ms = 0.0
        self.latencies: list[float] = []

    def start(self) -> None:
        if self._load.rate is None:
            for _ in range(min(self._load.connections, self._load.messages)):
                self._next()
            return
        for number in range(self._load.messages):
            self._machine.after(number * 1000 / self._load.rate, self._next)

    def _next(self) -> None:
        if self.begun < self._load.messages:
            self.begun += 1
            self._go_on(iter(self._steps), self._machine.now)

    def _go_on(self, rest: Iterator[Visit], begun_ms: float) -> None:
        visit = next(rest, None)
        if visit is None:
            return

        def done() -> None:
            if visit.accepts:
                self.accepted += 1
                if self._load.rate is None:
                    self._next()
            if visit.arrives:
                self.last_arrival_ms = self._machine.now
                self.latencies.append(self._machine.now - begun_ms)
            self._go_on(rest, begun_ms)

        if visit.stream:
            self._machine.write(visit.stream, self._sync_ms, done)
        else:
            self._machine.work(visit.service, visit.cpu_ms, done, ahead=visit.goes_on)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bench", type=Path, default=Path("../var/bench.json"), help="what bench.run wrote (default ../var/bench.json)"
    )
    parser.add_argument(
        "--scaling", type=Path, default=Path("../var/scaling.json"), help="what bench.scaling wrote; for --sizing"
    )
    parser.add_argument("--sizing", action="store_true", help="the table of machines for messages a day")
    parser.add_argument("--write-docs", action="store_true", help="with --sizing: into docs/operate/sizing.md")
    arguments = parser.parse_args()
    report = decoded(arguments.bench.read_bytes())
    if arguments.sizing:
        from bench import sizing  # needs this module

        text = sizing.markdown(report, sizing.stored_of(arguments.scaling))
        print(text)
        if arguments.write_docs:
            sizing.write(text)
        return 0
    worst = 0.0
    for entry, times in compared(report):
        predicted = simulate(times, Load(entry.messages, entry.connections), cores=times.cores).messages_per_s
        error = predicted / entry.messages_per_s - 1
        if entry.mix in _SIZED:
            worst = max(worst, abs(error))
        print(f"{entry.mix}: predicted {predicted:.0f}/s, measured {entry.messages_per_s:.0f}/s, {error:+.1%}")
    return 0 if worst <= PREDICTED_WITHIN else 1


if __name__ == "__main__":
    sys.exit(main())
