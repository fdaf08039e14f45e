"""What the simulation needs to know of each service, out of a run of `bench.run`: CPU a message, and the way of a message through the services.

A service that is visited more than once gives each visit a share of its CPU time. The shares are estimates: what is measured is the sum.
They matter little at full load, where the sum decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.measure import Measured
from bench.report import Report

PREDICTED_WITHIN = 0.15
_NAMES = {
    "nats-server": "broker",
    "ingress-anon": "gate",
    "screener": "screener",
    "delivery": "delivery",
    "api": "api",
}
SERVICES = (*_NAMES.values(), "generator", "sink")


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """`cpu_ms` a message, by `SERVICES`; `sync_ms` one durable write; `cores` are those that the run had for itself."""

    cpu_ms: Mapping[str, float]
    sync_ms: float
    cores: float = 2

    def __post_init__(self) -> None:
        if set(self.cpu_ms) != set(SERVICES):
            raise ValueError(f"services {sorted(self.cpu_ms)}, not {sorted(SERVICES)}")

    @property
    def total_ms(self) -> float:
        return sum(self.cpu_ms.values())

    @property
    def postern_ms(self) -> float:
        """Without the two ends of the benchmark."""
        return self.total_ms - self.cpu_ms["generator"] - self.cpu_ms["sink"]


@dataclass(frozen=True, slots=True)
class Visit:
    """One step: CPU of a service, or (with `stream`) a durable write. `goes_on`: the service has the message in hand and takes it up again before
    it begins another, as all do that hold a limited number. `accepts`: the 250 is out; `arrives`: at the sink."""

    service: str = ""
    cpu_ms: float = 0.0
    stream: str = ""
    goes_on: bool = False
    accepts: bool = False
    arrives: bool = False


def steps(times: ServiceTimes) -> Iterator[Visit]:
    """The way of a message, in order. What comes behind its arrival (the disposition, its trace) holds up nobody but takes CPU."""

    def cpu(service: str, share: float = 1.0, *, goes_on: bool = False, accepts: bool = False, arrives: bool = False) -> Visit:
        return Visit(service, times.cpu_ms[service] * share, goes_on=goes_on, accepts=accepts, arrives=arrives)

    yield cpu("generator")
    yield cpu("gate", 0.8)
    yield cpu("broker", 0.25)
    yield Visit(stream="INTAKE")
    yield cpu("gate", 0.2, goes_on=True, accepts=True)
    yield cpu("broker", 0.15)  # to the screener
    yield cpu("screener", 0.8)
    yield cpu("broker", 0.2)
    yield Visit(stream="OUTBOUND")
    yield cpu("screener", 0.2, goes_on=True)  # acknowledges its input
    yield cpu("broker", 0.15)  # that, and the job to delivery
    yield cpu("delivery", 0.6)
    yield cpu("sink", arrives=True)
    yield cpu("delivery", 0.25, goes_on=True)
    yield cpu("broker", 0.15)
    yield Visit(stream="DISPOSITIONS")
    yield cpu("delivery", 0.15, goes_on=True)
    yield cpu("broker", 0.1)  # the job's acknowledgement, and events
    yield cpu("api")


def compared(report: Report, system: str = "postern") -> Iterator[tuple[Measured, ServiceTimes]]:
    """Each standard measurement at full load, with the times that it gives. ValueError when there is none."""
    found = [
        entry.measured
        for each in report.systems
        if each.name == system
        for entry in each.entries
        if entry.load == "full" and entry.standard
    ]
    if not found:
        raise ValueError(f"no full load of {system} in this report")
    for measured in found:
        yield measured, times_of(measured, sync_ms=report.machine.sync_ms, cores=report.machine.cores)


def times_of(measured: Measured, *, sync_ms: float, cores: int) -> ServiceTimes:
    """Of one measurement: what the harness took counts, what others took of the cores meanwhile was not there."""
    cpu_ms = {name: measured.cpu_ms_per_message.get(of, 0.0) for of, name in _NAMES.items()}
    # the demo smart host, the other gate and the supervisor idle; their few microseconds go to the control plane
    cpu_ms["api"] += sum(ms for name, ms in measured.cpu_ms_per_message.items() if name not in (*_NAMES, "all"))
    ends = {"generator": measured.generator_cpu_ms, "sink": measured.sink_cpu_ms}
    return ServiceTimes(cpu_ms | ends, sync_ms, max(cores - measured.elsewhere_cores, 0.1))
