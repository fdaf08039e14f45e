"""The curves that need a whole embedded stack: `workers`, `backlog`, `recipients`. Each starts stacks of its own and stops them again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from bench import generator, sink
from bench.growth import Curve, Point
from bench.measure import Load, Measured, Running, measure, running_sink
from bench.mix import WORDS, caught_flags
from bench.postern import running_postern
from fixtures.ports import free_port
from fixtures.stack import Stack, alive, eventually

WORKERS = (1, 2, 3, 4)
BACKLOG = (10, 1000, 10_000, 100_000)
RECIPIENTS = (1, 10, 30, 100)
_TESTS = Path(__file__).resolve().parent.parent
_STALLED_S = 60.0


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes in the broker's streams for each message of `mix`, one recipient each: what the sizing page multiplies."""

    mix: str
    sent_bytes: float  # as the client sent it
    message_bytes: float  # as it waits in INTAKE
    disposition_bytes: float
    event_bytes: float


@dataclass(frozen=True)
class _Bench:
    """A stack that relays to a sink, and where both ends write."""

    stack: Stack
    sink_pid: int
    directory: Path

    @property
    def arrivals(self) -> Path:
        return self.directory / "arrivals.bin"

    def measured(self, load: Load) -> Measured:
        running = Running(self.stack.address("anon")[1], self.stack.endpoints["processes"])
        found = measure(
            running, load, screened=True, sink_pid=self.sink_pid, arrivals=self.arrivals, sent=self.directory / "sent.bin"
        )
        if found.lost or found.copies or found.strays or found.passed:
            raise RuntimeError(f"{found.lost} lost, {found.copies} copies, {found.strays} strays, {found.passed} past a rule")
        return found


@contextmanager
def _bench(below: Path, *options: str) -> Iterator[_Bench]:
    with tempfile.TemporaryDirectory(prefix="postern-scaling-", dir=below) as name:
        port, directory = free_port(), Path(name)
        with (
            running_sink(port, directory / "arrivals.bin") as sink_pid,
            running_postern(directory / "var", port, options=options) as stack,
        ):
            yield _Bench(stack, sink_pid, directory)


def workers_curve(numbers: Sequence[int] = WORKERS, *, below: Path, messages: int = 3000) -> Curve:
    """Throughput against screener processes, under rules that make screening the dearest step by far."""
    points: list[Point] = []
    rate_of_one = 0.0
    for number in numbers:
        with _bench(below, "--workers", str(number)) as bench:
            condition = {"type": "keyword", "phrases": fragments(), "whole_word": True, "scope": "body"}
            body = {"name": "CPU-bound", "action": "delete", "condition": condition}
            bench.stack.api.post("/rules", json=body).raise_for_status()
            bench.stack.wait_live()
            warm_up = Load("small", messages=min(200, messages))
            bench.measured(warm_up)
            found = bench.measured(replace(warm_up, messages=messages, first=warm_up.messages))
        rate_of_one = rate_of_one or found.messages_per_s
        told = (
            f"{found.messages_per_s:.0f}/s, {found.messages_per_s / rate_of_one:.2f} × one; "
            f"screener {found.cpu_ms_per_message['screener']:.2f} of {found.cpu_ms_per_message['all']:.2f} CPU ms"
        )
        points.append(Point(number, found.cpu_ms_per_message["all"], told))
    return Curve(
        name=f"workers ({os.cpu_count()} cores)",
        n_is="screener workers",
        cost_is="CPU ms a message, all services (small)",
        points=points,
    )


def fragments() -> list[str]:
    """Three letters out of each word of which the texts are made, none a word of theirs: each of their many places is found, looked at and refused."""
    return sorted({word[at : at + 3] for word in WORDS for at in range(len(word) - 2)} - set(WORDS))


def recipients_curve(numbers: Sequence[int] = RECIPIENTS, *, below: Path, deliveries: int = 20_000) -> Curve:
    """Messages with more and more recipients, all of one route; as many as make `deliveries` recipients, and twenty messages at least."""
    points = []
    first = 0
    with _bench(below) as bench:
        bench.measured(Load("small", messages=20))
        for number in numbers:
            first += 1_000_000
            messages = max(deliveries // number // 4 if number == 1 else deliveries // number, 20)
            found = bench.measured(Load("small", messages=messages, first=first, recipients=number))
            told = f"{found.messages_per_s * number:.0f} recipients/s, {found.messages_per_s:.0f} messages/s"
            points.append(Point(number, found.cpu_ms_per_message["all"], told))
    return Curve(name="recipients", n_is="recipients a message", cost_is="CPU ms a message, all services (small)", points=points)


def backlog_curve(numbers: Sequence[int] = BACKLOG, *, below: Path) -> tuple[Curve, Stored]:
    """Messages wait in INTAKE while there is no screener; then there is one: seconds from the first to the last arrival."""
    points = []
    first = sent_in_all = 0
    flags = caught_flags("small")
    message_bytes = sent_bytes = 0.0
    with _bench(below) as bench:
        for number in numbers:
            bench.arrivals.write_bytes(b"")
            with _no_screener(bench.stack):
                _send(bench, Load("small", messages=number, first=first))
                waiting = bench.stack.streams()["INTAKE"]
                if not 0 < waiting["messages"] <= number:  # an entry may be a batch
                    raise RuntimeError(f"{waiting['messages']} entries wait, {number} messages were sent")
                message_bytes = waiting["bytes"] / number
                records = generator.RECORD.iter_unpack((bench.directory / "sent.bin").read_bytes())
                sent_bytes = sum(size for *_, size in records) / number
            expected = sum(not flags[each % len(flags)] for each in range(number))
            times = _wait_arrived(bench.arrivals, expected)
            took_s = (times[-1] - times[0]) / 1e9
            points.append(Point(number, took_s, f"{took_s:.2f} s, {expected / took_s:.0f} messages/s"))
            first, sent_in_all = first + number, sent_in_all + number
        eventually(lambda: _ended(bench.stack) >= sent_in_all, "every disposition")
        streams = bench.stack.streams()
    curve = Curve(name="backlog", n_is="messages waiting", cost_is="s from the first to the last arrival (small)", points=points)
    return curve, Stored(
        mix="small",
        sent_bytes=round(sent_bytes, 1),
        message_bytes=round(message_bytes, 1),
        disposition_bytes=round(streams["DISPOSITIONS"]["bytes"] / sent_in_all, 1),
        event_bytes=round(streams["EVENTS"]["bytes"] / sent_in_all, 1),
    )


def _ended(stack: Stack) -> int:
    """How many messages have come to their end, says the ledger."""
    total = stack.api.get("/ledger").raise_for_status().json()["total"]
    return int(total["accepted"] - total["in_flight"])


@contextmanager
def _no_screener(stack: Stack) -> Iterator[None]:
    """The screener ends as on any stop, holding no message, and its supervisor is kept from starting it again before the block ends."""
    assert stack.process is not None
    before = stack.pids("screener")
    stack.process.send_signal(signal.SIGSTOP)
    try:
        for pid in before:
            os.kill(pid, signal.SIGTERM)
        # nobody waits for it meanwhile: it stays as a zombie, which runs nothing any more
        eventually(lambda: all(not alive(pid) or _is_zombie(pid) for pid in before), "the screener to end")
        yield
    finally:
        stack.process.send_signal(signal.SIGCONT)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _send(bench: _Bench, load: Load) -> None:
    command = [sys.executable, "-m", "bench.generator", "--port", str(bench.stack.address("anon")[1]), "--mix", load.mix]
    command += ["--messages", str(load.messages), "--first", str(load.first), "--log", str(bench.directory / "sent.bin")]
    subprocess.run(command, cwd=_TESTS, check=True, stdout=subprocess.DEVNULL)


def _wait_arrived(arrivals: Path, expected: int) -> list[int]:
    """Times of arrival in nanoseconds, in order. RuntimeError when fewer, or more, come."""
    size, grew_at = 0, time.monotonic()
    while size < expected * sink.RECORD.size and time.monotonic() - grew_at < _STALLED_S:
        time.sleep(0.05)
        if (now := arrivals.stat().st_size) != size:
            size, grew_at = now, time.monotonic()
    numbers = dict(sink.RECORD.iter_unpack(arrivals.read_bytes()))
    if len(numbers) != expected:
        raise RuntimeError(f"{len(numbers)} of {expected} messages arrived")
    return sorted(numbers.values())
