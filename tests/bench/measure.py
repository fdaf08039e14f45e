"""One measurement: generator → system under test → sink, each a process of its own.

Latency is from the moment when a message was due (at a rate) or begun (at full load) to the sink's 250: a system that answers early and
delivers late gains nothing. Every message has a number of its own in the whole run, so that what comes late is counted where it belongs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench import generator, sink
from bench.mix import caught_flags
from bench.processes import busy_s, children_of_all, cpu_s, memory_bytes

TESTS = Path(__file__).resolve().parent.parent
_STALLED_S = 30.0  # nothing has arrived for so long: what is missing is lost
_SAMPLE_S = 1.0
_QUIET_S = 10.0  # at most, for what services do after the last message


@dataclass(frozen=True, slots=True)
class Running:
    """A system under test: where it takes mail, and the processes (with their descendants) whose CPU time and memory count, by service."""

    port: int
    services: Mapping[str, Sequence[int]]
    version: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent. `rate` (messages/s) None: as fast as it is taken. `first`: number of the first message."""

    mix: str = "mixed"
    messages: int = 2000
    connections: int = 20
    per_connection: int = 10
    rate: float | None = None
    first: int = 0
    recipients: int = 1  # of each message


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. Latencies in milliseconds, memory in MB (10⁶ bytes), CPU in milliseconds per message sent."""

    mix: str
    connections: int
    per_connection: int
    offered_per_s: float | None  # None: full load
    messages: int
    expected: int  # those that no rule is meant to catch
    arrived: int
    lost: int
    copies: int
    passed: int  # arrived although a rule is meant to catch them
    strays: int  # what arrived besides: messages of an earlier measurement, DSNs
    messages_per_s: float
    megabytes_per_s: float
    latency_p50_ms: float
    latency_p99_ms: float
    latency_p999_ms: float
    cpu_ms_per_message: dict[str, float]
    peak_memory_mb: dict[str, float]
    refused_for_now: int
    hung_up: int
    generator_cpu_ms: float
    sink_cpu_ms: float
    elsewhere_cores: float  # CPU spent by others meanwhile, kernel threads included: on a quiet machine about 0


@contextmanager
def running_sink(port: int, log: Path) -> Iterator[int]:
    """The sink on 127.0.0.1:`port`; gives its pid."""
    process = subprocess.Popen([sys.executable, "-m", "bench.sink", "--port", str(port), "--log", str(log)], cwd=TESTS)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def measure(running: Running, load: Load, *, screened: bool, sink_pid: int, arrivals: Path, sent: Path) -> Measured:
    """Send `load` and wait until all that is expected has arrived at the sink that writes `arrivals`.

    `screened`: the system has the rules of the benchmark. `sent` is written. RuntimeError when the generator could not send all of it.
    """
    expected = len(_numbers(load, screened=screened)[0])
    arrivals.write_bytes(b"")
    meter = _Meter(running.services, sink_pid)
    told = _generate(running.port, load, sent, meter, arrivals, expected)
    meter.wait_quiet()
    return evaluate(load, screened=screened, sent=sent.read_bytes(), arrivals=arrivals.read_bytes(), used=meter.read(told))


def generator_command(port: int, load: Load, sent: Path) -> list[str]:
    """What sends `load`, to be run in `TESTS`."""
    command = [sys.executable, "-m", "bench.generator", "--port", str(port), "--mix", load.mix, "--messages", str(load.messages)]
    command += ["--connections", str(load.connections), "--per-connection", str(load.per_connection)]
    command += ["--recipients", str(load.recipients), "--first", str(load.first), "--log", str(sent)]
    return [*command, *(["--rate", str(load.rate)] if load.rate else [])]


def _generate(port: int, load: Load, sent: Path, meter: _Meter, arrivals: Path, expected: int) -> dict[str, float]:
    """Returns what the generator tells, once all that is expected has arrived or nothing comes any more."""
    process = subprocess.Popen(
        generator_command(port, load, sent), cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        size, grew_at = 0, time.monotonic()
        while size < expected * sink.RECORD.size or process.poll() is None:
            time.sleep(0.1)
            meter.sample()
            if (now := arrivals.stat().st_size) != size or process.poll() is None:
                size, grew_at = now, time.monotonic()
            elif time.monotonic() - grew_at > _STALLED_S:
                break
        output, errors = process.communicate()
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"the generator ended with {process.returncode}: {errors.strip()[-500:]}")
    told: dict[str, float] = json.loads(output)
    return told


@dataclass(frozen=True, slots=True)
class Used:
    """What a measurement took, in seconds of CPU and bytes."""

    cpu_s: Mapping[str, float]
    peak_bytes: Mapping[str, int]
    generator_s: float
    sink_s: float
    elsewhere_cores: float
    refused: int
    hung_up: int


class _Meter:
    """CPU time since it was made, and the most memory seen."""

    def __init__(self, services: Mapping[str, Sequence[int]], sink_pid: int) -> None:
        self._services = {name: list(pids) for name, pids in services.items()} | {"": [sink_pid]}
        self._peak = dict.fromkeys(services, 0)
        self._sampled_at = 0.0
        self._before = self._cpu()
        self._busy, self._harness, self._started = busy_s(), _harness_s(), time.monotonic()

    def _cpu(self) -> dict[str, float]:
        return {name: cpu_s(pids) for name, pids in self._services.items()}

    def sample(self) -> None:
        """Look at memory, not more often than the look itself stays cheap."""
        if time.monotonic() - self._sampled_at < _SAMPLE_S:
            return
        self._sampled_at = time.monotonic()
        children = children_of_all()
        for name in self._peak:
            self._peak[name] = max(self._peak[name], memory_bytes(self._services[name], children))

    def wait_quiet(self) -> None:
        """Return when the services have done what they do behind the last message (traces, deletions): that CPU time is theirs too."""
        deadline = time.monotonic() + _QUIET_S
        now = sum(self._cpu().values())
        while time.monotonic() < deadline:
            before = now
            time.sleep(0.5)
            now = sum(self._cpu().values())
            if now - before < 0.03:
                return

    def read(self, told: Mapping[str, float]) -> Used:
        used = {name: value - self._before[name] for name, value in self._cpu().items()}
        mine = sum(used.values()) + _harness_s() - self._harness
        elsewhere = max(busy_s() - self._busy - mine, 0) / (time.monotonic() - self._started)
        sink_s = used.pop("")
        return Used(used, self._peak, told["cpu_s"], sink_s, elsewhere, int(told["refused"]), int(told["hung_up"]))


def _harness_s() -> float:
    """CPU time of this process and of its children that have ended: the generator is the only one that ends during a measurement."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _numbers(load: Load, *, screened: bool) -> tuple[set[int], set[int]]:
    """Numbers of the messages that are expected at the sink, and of those that a rule is meant to catch."""
    flags = caught_flags(load.mix)
    caught = {load.first + number for number in range(load.messages) if screened and flags[number % len(flags)]}
    return set(range(load.first, load.first + load.messages)) - caught, caught


def evaluate(load: Load, *, screened: bool, sent: bytes, arrivals: bytes, used: Used) -> Measured:
    """The figures of one measurement, from what generator and sink wrote. RuntimeError when nothing arrived."""
    begun = {number: (start, size) for number, start, _, size in generator.RECORD.iter_unpack(sent)}
    expected, caught = _numbers(load, screened=screened)
    came: dict[int, int] = {}
    copies = strays = 0
    for number, at in sink.RECORD.iter_unpack(arrivals):
        if number in came:
            copies += 1
        elif number in begun:
            came[number] = at
        else:
            strays += 1
    if not came:
        raise RuntimeError("nothing arrived")
    took_s = (max(came.values()) - min(start for start, _ in begun.values())) / 1e9
    latencies = sorted((at - begun[number][0]) / 1e6 for number, at in came.items())
    cpu_ms = {name: value * 1000 / load.messages for name, value in used.cpu_s.items()}

    def percentile(share: float) -> float:
        return round(latencies[min(int(len(latencies) * share), len(latencies) - 1)], 1)

    return Measured(
        mix=load.mix,
        connections=load.connections,
        per_connection=load.per_connection,
        offered_per_s=None if load.rate is None else round(load.rate, 1),
        messages=load.messages,
        expected=len(expected),
        arrived=len(came),
        lost=len(expected - came.keys()),
        copies=copies,
        passed=len(caught & came.keys()),
        strays=strays,
        messages_per_s=round(load.messages / took_s, 1),
        megabytes_per_s=round(sum(size for _, size in begun.values()) / took_s / 1e6, 2),
        latency_p50_ms=percentile(0.5),
        latency_p99_ms=percentile(0.99),
        latency_p999_ms=percentile(0.999),
        cpu_ms_per_message={name: round(value, 3) for name, value in (cpu_ms | {"all": sum(cpu_ms.values())}).items()},
        peak_memory_mb={name: round(value / 1e6, 1) for name, value in used.peak_bytes.items()},
        refused_for_now=used.refused,
        hung_up=used.hung_up,
        generator_cpu_ms=round(used.generator_s * 1000 / load.messages, 3),
        sink_cpu_ms=round(used.sink_s * 1000 / load.messages, 3),
        elsewhere_cores=round(used.elsewhere_cores, 2),
    )
