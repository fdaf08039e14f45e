"""`make soak`: hours of steady load, after which nothing has grown that should not.

    python -m chaos.soak --minutes 240 --rate 60

Memory, file descriptors and threads of each process, connections of the broker, and what lies in the streams and the retry queue are
sampled; the last third of the run is compared with the third before it, so that caches that fill at first are no leak. What grows with the
mail by design (trace, dispositions) is shown as bytes a message. Exit code 0 when all of it is flat and no message is missing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from bench import sink
from bench.measure import running_sink
from bench.mix import templates
from bench.postern import running_postern
from fixtures.ports import free_port
from fixtures.stack import Stack, eventually

_TESTS = Path(__file__).resolve().parent.parent
_EVERY_S = 2.0
_MIX = "small"
_MIB = 1024 * 1024
_IN_FLIGHT = ("INTAKE", "OUTBOUND", "DEFERRED", "BODIES")
# all that a relay with one route has: an ephemeral one, or a second on a work queue, would be somebody's leak
_CONSUMERS = {("INTAKE", "screener"), ("OUTBOUND", "delivery-default"), ("DISPOSITIONS", "recorder"), ("EVENTS", "recorder")}
# what counts as growth between two thirds of a run: this share, and this much besides (noise of an allocator, a connection more)
_TOLERANCE: Mapping[str, tuple[float, float]] = {
    "memory (MiB)": (0.05, 4.0),
    "descriptors": (0.0, 8.0),
    "threads": (0.0, 4.0),
    "connections": (0.0, 2.0),
}
# the broker remembers message ids for half an hour, and takes memory up to its soft limit before it collects
_BROKER_MIB = 650.0


@dataclass
class Samples:
    """Series by (what, whom), one value every two seconds."""

    series: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, whom: str, value: float) -> None:
        self.series[what, whom].append(value)

    def grown(self) -> Iterator[str]:
        """One sentence for each series whose last third lies above the third before it."""
        for (what, whom), values in sorted(self.series.items()):
            before, after = thirds(values)
            if (what, whom) == ("memory (MiB)", "nats-server"):
                if after > _BROKER_MIB:
                    yield f"{what} of {whom} is {after:.1f}, over {_BROKER_MIB:.0f}"
                continue
            share, besides = _TOLERANCE[what]
            if after > before * (1 + share) + besides:
                yield f"{what} of {whom} grew from {before:.1f} to {after:.1f}"

    def table(self) -> str:
        rows = [f"  {what:14} {whom:13} {before:9.1f} {after:9.1f}" for (what, whom), (before, after) in self._thirds()]
        return "\n".join([f"  {'':14} {'':13} {'2nd third':>9} {'3rd third':>9}", *rows])

    def _thirds(self) -> Iterator[tuple[tuple[str, str], tuple[float, float]]]:
        for name, values in sorted(self.series.items()):
            yield name, thirds(values)


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """Means of the second and of the last third. ValueError for fewer than three values."""
    third = len(values) // 3
    if not third:
        raise ValueError("too short a run to say anything")
    return fmean(values[third : 2 * third]), fmean(values[-third:])


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of a run."""

    messages: int
    expected: int
    arrived: int
    copies: int
    complaints: tuple[str, ...]
    table: str

    @property
    def good(self) -> bool:
        return not self.complaints and self.arrived == self.expected and self.copies == 0


def soak(directory: Path, *, seconds: float, rate: float) -> Soaked:
    """Run the embedded stack below `directory` for so long at so many messages a second."""
    port, arrivals = free_port(), directory / "arrivals.bin"
    messages = int(seconds * rate)
    with running_sink(port, arrivals), running_postern(directory / "var", port) as stack:
        samples = Samples()
        command = [sys.executable, "-m", "bench.generator", "--port", str(stack.address("anon")[1]), "--mix", _MIX]
        command += ["--messages", str(messages), "--rate", str(rate), "--connections", "8", "--log", str(directory / "sent.bin")]
        generating = subprocess.Popen(command, cwd=_TESTS, stdout=subprocess.DEVNULL)
        while generating.poll() is None:
            _sample(stack, samples)
            time.sleep(_EVERY_S)
        if generating.returncode != 0:
            raise RuntimeError(f"the generator ended with {generating.returncode}")
        caught = [template.caught for template in templates(_MIX)]
        expected = sum(not caught[number % len(caught)] for number in range(messages))
        eventually(lambda: len(_numbers(arrivals)) >= expected, "all messages to arrive")
        eventually(lambda: not any(stack.streams()[name]["messages"] for name in _IN_FLIGHT), "the streams to be empty")
        complaints = [*samples.grown(), *_books(stack, messages), *_consumers(stack)]
        growth = _by_design(stack, messages)
    numbers = _numbers(arrivals)
    arrived = len(set(numbers))
    return Soaked(messages, expected, arrived, len(numbers) - arrived, tuple(complaints), f"{samples.table()}\n{growth}")


def _sample(stack: Stack, samples: Samples) -> None:
    for name, pids in stack.endpoints["processes"].items():
        folder = Path(f"/proc/{pids[0]}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        samples.add("memory (MiB)", name, int(status["VmRSS"].split()[0]) * 1024 / _MIB)
        samples.add("threads", name, int(status["Threads"]))
        samples.add("descriptors", name, len(list((folder / "fd").iterdir())))
    samples.add("connections", "nats-server", stack.monitor("varz")["connections"])


def _books(stack: Stack, messages: int) -> Iterator[str]:
    # books that are a moment behind balance as well
    eventually(lambda: not any(_unrecorded(stack)), "everything to be recorded")
    ledger = eventually(lambda: _balanced(stack), "the ledger to balance")
    if ledger["accepted"] != messages:
        yield f"the ledger says {ledger['accepted']} accepted, not {messages}"
    if total := stack.api.get("/queue").raise_for_status().json()["total"]:
        yield f"{total} rows stay in the retry queue"


def _unrecorded(stack: Stack) -> Iterator[int]:
    """How much of each stream the api's recorder has not written down yet."""
    for name in ("DISPOSITIONS", "EVENTS"):
        for consumer in _streams(stack)[name]["consumer_detail"]:
            yield consumer["num_pending"] + consumer["num_ack_pending"]


def _streams(stack: Stack) -> dict[str, Any]:
    """Every stream with its consumers, as the broker tells them."""
    details = [account["stream_detail"] for account in stack.monitor("jsz?streams=true&consumers=true")["account_details"]]
    return {stream["name"]: stream for streams in details for stream in streams}


def _consumers(stack: Stack) -> Iterator[str]:
    """Exactly those that were made, and each knows of every message of its stream: what no consumer counts is handed to nobody."""
    streams = _streams(stack)
    found = {(name, consumer["name"]) for name, stream in streams.items() for consumer in stream.get("consumer_detail") or ()}
    if found != _CONSUMERS:
        yield f"consumers are {sorted(found)}, not {sorted(_CONSUMERS)}"
    for name in ("INTAKE", "OUTBOUND"):
        held = streams[name]["state"]["messages"]
        known = sum(
            consumer["num_pending"] + consumer["num_ack_pending"] for consumer in streams[name].get("consumer_detail") or ()
        )
        if held != known:
            yield f"{name} holds {held} messages, and its consumers know of {known}"


def _balanced(stack: Stack) -> dict[str, int] | None:
    total: dict[str, int] = stack.api.get("/ledger").raise_for_status().json()["total"]
    return total if total["in_flight"] == 0 else None


def _by_design(stack: Stack, messages: int) -> str:
    streams = stack.streams()
    kept = {name: streams[name]["bytes"] for name in ("DISPOSITIONS", "EVENTS")}
    kept |= {f"{name}.db": sum(file.stat().st_size for file in stack.state.glob(f"{name}.db*")) for name in ("queue", "control")}
    return "\n".join(f"  {name:28} {size / messages:9.0f} bytes a message" for name, size in kept.items())


def _numbers(arrivals: Path) -> list[int]:
    return [number for number, _ in sink.RECORD.iter_unpack(arrivals.read_bytes())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=240, help="of load (default 240)")
    parser.add_argument("--rate", type=float, default=60, help="messages a second (default 60)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="postern-soak-") as directory:
        soaked = soak(Path(directory), seconds=arguments.minutes * 60, rate=arguments.rate)
    print(soaked.table)
    print(f"{soaked.messages} messages sent, {soaked.arrived} of {soaked.expected} arrived, {soaked.copies} of them twice")
    for complaint in soaked.complaints:
        print(f"  ! {complaint}")
    print("good" if soaked.good else "NOT GOOD")
    return 0 if soaked.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
