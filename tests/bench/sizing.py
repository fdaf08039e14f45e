"""The table of docs/operate/sizing.md: messages a day → processes, cores, memory and disk, with the simulation as its judge.

How many processes a load needs follows from CPU a message; that they then keep up, and how long mail takes, the simulation says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from bench.curve_stack import Stored
from bench.measure import Measured
from bench.report import Report, table, write_between_markers
from bench.service_times import ServiceTimes, compared
from bench.simulation import Load, Outcome, simulate

PAGE = Path(__file__).resolve().parents[2] / "docs/operate/sizing.md"
MARKERS = ("<!-- sizing:begin -->", "<!-- sizing:end -->")
MESSAGES_A_DAY = (100_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000)
_DAY_S = 86_400
_SIMULATED = 3000  # messages
_REPLICATED = ("gate", "screener", "delivery")
_GB = 1e9


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the table takes for granted; each is a choice, and stands above the table."""

    peak_factor: float = 5.0  # the busiest minute against the mean of the day
    utilisation: float = 0.6  # of a core, or a process, at the peak
    outage_h: float = 4.0  # smart host away at the mean rate: all of it waits in DEFERRED
    held_share: float = 0.01  # of mail, in quarantine
    held_days: int = 30
    dispositions_days: int = 7  # the streams' own settings, docs/reference/bus.md
    events_days: int = 2
    disk_used: float = 0.7  # of the broker's disk: its store is made no larger


@dataclass(frozen=True, slots=True)
class Size:
    """One line. Disk and memory in bytes; `sync_ms` is the longest durable write that still keeps up at the peak."""

    messages_a_day: int
    peak_per_s: float
    replicas: dict[str, int]
    broker_cores: int
    cores: int
    memory_bytes: float
    disk_bytes: dict[str, float]
    sync_ms: float
    outcome: Outcome

    @property
    def broker_disk_bytes(self) -> float:
        return sum(self.disk_bytes.values())

    @property
    def keeps_up(self) -> bool:
        """The last message arrived soon after it was sent: nothing piled up meanwhile."""
        sent_ms = self.outcome.begun * 1000 / self.peak_per_s
        return self.outcome.last_arrival_ms < sent_ms * 1.1 + 100


def size(messages_a_day: int, times: ServiceTimes, measured: Measured, stored: Stored, assumed: Assumptions) -> Size:
    """What so much mail of the kind that was measured needs."""
    peak_per_s = messages_a_day / _DAY_S * assumed.peak_factor

    def processes(service: str) -> int:
        return math.ceil(peak_per_s * times.cpu_ms[service] / 1000 / assumed.utilisation)

    replicas = {service: processes(service) for service in _REPLICATED} | {"api": max(processes("api"), 1)}
    cores = max(math.ceil(peak_per_s * times.postern_ms / 1000 / assumed.utilisation), 1)
    with_ends = cores * times.total_ms / times.postern_ms  # the simulated ends run on cores of their own
    sync_ms = assumed.utilisation * 1000 / peak_per_s
    # on a disk that is as fast as it has to be: what a slower one does is clear without a simulation
    on_disk = replace(times, sync_ms=min(times.sync_ms, sync_ms))
    outcome = simulate(on_disk, Load(_SIMULATED, rate=peak_per_s), cores=with_ends, replicas=replicas)
    message_bytes = _message_bytes(measured) + stored.message_bytes - stored.sent_bytes
    a_day = messages_a_day * message_bytes
    disk_bytes = {
        "DISPOSITIONS": messages_a_day * assumed.dispositions_days * stored.disposition_bytes,
        "EVENTS": messages_a_day * assumed.events_days * stored.event_bytes,
        "DEFERRED": a_day * assumed.outage_h / 24,
        "QUARANTINE": a_day * assumed.held_share * assumed.held_days,
    }
    return Size(
        messages_a_day=messages_a_day,
        peak_per_s=peak_per_s,
        replicas=replicas,
        broker_cores=max(processes("broker"), 1),
        cores=cores,
        memory_bytes=_memory_bytes(measured, replicas),
        disk_bytes=disk_bytes,
        sync_ms=sync_ms,
        outcome=outcome,
    )


def _message_bytes(measured: Measured) -> float:
    return measured.megabytes_per_s * 1e6 / measured.messages_per_s


def _memory_bytes(measured: Measured, replicas: dict[str, int]) -> float:
    """Peak memory of one process of each, times the processes."""
    names = {"gate": "ingress-anon"}
    counted = {names.get(name, name): number for name, number in replicas.items()}
    return sum(megabytes * 1e6 * counted.get(name, 1) for name, megabytes in measured.peak_memory_mb.items())


def stored_of(path: Path) -> Stored:
    """What the `backlog` curve saw, out of the JSON of bench.scaling. ValueError when that curve was not measured."""
    from bench.scaling import decoded

    stored = decoded(path.read_bytes()).stored
    if stored is None:
        raise ValueError(f"{path} has no figures of the curve backlog")
    return stored


def markdown(report: Report, stored: Stored, assumed: Assumptions = Assumptions()) -> str:
    """A table for each mix that was measured."""
    told = (
        f"Measured on {report.machine.sentence}. "
        f"Assumed: the busiest minute has {assumed.peak_factor:g} times the day's mean; {assumed.utilisation:.0%} of a core used then; "
        f"a smart host that is away for {assumed.outage_h:g} h of mean load; {assumed.held_share:.0%} of mail held for {assumed.held_days} days. "
        f"A durable write took {report.machine.sync_ms:g} ms. In the streams a message takes {stored.disposition_bytes:.0f} bytes of DISPOSITIONS "
        f"for each recipient, {stored.event_bytes:.0f} bytes of EVENTS, and {stored.message_bytes - stored.sent_bytes:.0f} bytes besides itself while it waits."
    )
    parts = [told]
    for measured, times in compared(report):
        rows = [_row(size(each, times, measured, stored, assumed), times, assumed) for each in MESSAGES_A_DAY]
        parts.append(f"**{measured.mix}**, {_message_bytes(measured) / 1000:.0f} KB a message, {times.postern_ms:.2f} CPU ms")
        parts.append(table(_HEADS, rows))
    return "\n\n".join(parts)


_HEADS = (
    "messages a day",
    "at the peak, /s",
    "gate",
    "screener",
    "delivery",
    "api",
    "broker, cores",
    "cores in all",
    "memory GB",
    "broker's disk GB",
    "of it DISPOSITIONS / EVENTS / DEFERRED / QUARANTINE",
    "durable write at most, ms",
    "simulated p50 / p99 ms",
)


def _row(found: Size, times: ServiceTimes, assumed: Assumptions) -> tuple[str, ...]:
    outcome = found.outcome
    latency = f"{outcome.latency_ms(0.5):.0f} / {outcome.latency_ms(0.99):.0f}" if found.keeps_up else "**does not keep up**"
    return (
        f"{found.messages_a_day:,}",
        f"{found.peak_per_s:.0f}",
        *(str(found.replicas[service]) for service in (*_REPLICATED, "api")),
        str(found.broker_cores),
        str(found.cores),
        f"{found.memory_bytes / _GB:.1f}",
        _gigabytes(found.broker_disk_bytes / assumed.disk_used),
        " / ".join(_gigabytes(amount) for amount in found.disk_bytes.values()),
        f"{found.sync_ms:.2g}" if found.sync_ms >= times.sync_ms else f"**{found.sync_ms:.2g}**",
        latency,
    )


def _gigabytes(amount: float) -> str:
    return f"{amount / _GB:,.0f}" if amount >= 10 * _GB else f"{amount / _GB:.2g}"


def write(text: str) -> None:
    """Into the page."""
    write_between_markers(PAGE, text, MARKERS)
