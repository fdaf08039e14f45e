"""One measurement: generator → system under test → sink, each a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench import generator, sink
from bench.mix import templates
from bench.processes import cpu_s, rss_bytes

_TESTS = Path(__file__).resolve().parent.parent
_SETTLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent. `rate` None: as fast as it is taken."""

    mix: str = "mixed"
    messages: int = 2000
    connections: int = 20
    per_connection: int = 10
    rate: float | None = None


class Measured(msgspec.Struct, kw_only=True):
    """What came of it. Latency is from the moment when a message was due (or begun) to its arrival at the sink, in milliseconds."""

    system: str
    mix: str
    messages: int
    expected: int  # those that no rule is meant to catch
    arrived: int
    copies: int
    messages_per_s: float
    megabytes_per_s: float
    latency_p50_ms: float
    latency_p99_ms: float
    latency_p999_ms: float
    cpu_ms_per_message: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: dict[str, float] = field(default_factory=dict)
    refused_for_now: int = 0


@contextmanager
def running_sink(port: int, log: Path) -> Iterator[None]:
    """The sink on 127.0.0.1:`port`."""
    process = subprocess.Popen([sys.executable, "-m", "bench.sink", "--port", str(port), "--log", str(log)], cwd=_TESTS)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def measure(system: str, port: int, services: dict[str, list[int]], load: Load, arrivals: Path, sent: Path) -> Measured:
    """Send `load` to 127.0.0.1:`port` and wait until all that is expected has arrived at the sink that writes `arrivals`.

    `services` names the processes whose CPU time and memory count (pids; their descendants count with them).
    """
    caught = [template.caught for template in templates(load.mix)]
    with_rules = system.startswith("postern")
    expected = sum(not (with_rules and caught[n % len(caught)]) for n in range(load.messages))
    arrivals.write_bytes(b"")
    cpu_before = {name: cpu_s(pids) for name, pids in services.items()}
    peak = dict.fromkeys(services, 0)
    command = [sys.executable, "-m", "bench.generator", "--port", str(port), "--mix", load.mix, "--messages", str(load.messages)]
    command += ["--connections", str(load.connections), "--per-connection", str(load.per_connection), "--log", str(sent)]
    if load.rate:
        command += ["--rate", str(load.rate)]
    generating = subprocess.Popen(command, cwd=_TESTS, stdout=subprocess.PIPE, text=True)
    deadline = None
    while True:
        for name, pids in services.items():
            peak[name] = max(peak[name], rss_bytes(pids))
        if generating.poll() is not None:
            deadline = deadline or time.monotonic() + _SETTLE_S
            if arrivals.stat().st_size // sink.RECORD.size >= expected or time.monotonic() > deadline:
                break
        time.sleep(0.25)
    output, _ = generating.communicate()
    if generating.returncode != 0:
        raise RuntimeError(f"the generator ended with {generating.returncode}")
    time.sleep(0.5)  # the sink's buffer, and the tail of what services do about the last message
    cpu = {name: cpu_s(pids) - cpu_before[name] for name, pids in services.items()}
    return _evaluate(system, load, expected, arrivals, sent, cpu, peak, int(output or 0))


def _evaluate(
    system: str, load: Load, expected: int, arrivals: Path, sent: Path, cpu: dict[str, float], peak: dict[str, int], refused: int
) -> Measured:
    begun = {number: (start, size) for number, start, _, size in generator.RECORD.iter_unpack(sent.read_bytes())}
    came: dict[int, int] = {}
    copies = 0
    for number, at in sink.RECORD.iter_unpack(arrivals.read_bytes()):
        if number in came:
            copies += 1
        else:
            came[number] = at
    if not came:
        raise RuntimeError(f"{system}: nothing arrived")
    took_s = (max(came.values()) - min(start for start, _ in begun.values())) / 1e9
    latencies = sorted((at - begun[number][0]) / 1e6 for number, at in came.items())
    cpu_ms = {name: used * 1000 / load.messages for name, used in cpu.items()}
    cpu_ms["all"] = sum(cpu_ms.values())

    def percentile(share: float) -> float:
        return round(latencies[min(int(len(latencies) * share), len(latencies) - 1)], 1)

    return Measured(
        system=system,
        mix=load.mix,
        messages=load.messages,
        expected=expected,
        arrived=len(came),
        copies=copies,
        messages_per_s=round(load.messages / took_s, 1),
        megabytes_per_s=round(sum(size for _, size in begun.values()) / took_s / 1e6, 2),
        latency_p50_ms=percentile(0.5),
        latency_p99_ms=percentile(0.99),
        latency_p999_ms=percentile(0.999),
        cpu_ms_per_message={name: round(value, 3) for name, value in cpu_ms.items()},
        peak_rss_mb={name: round(value / 1e6, 1) for name, value in peak.items()},
        refused_for_now=refused,
    )
