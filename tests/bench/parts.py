"""Parts of Postern against the targets for them: the gate alone, its connections, inspection alone, screener workers alone, and the embedded stack
with nothing to do.

    python -m bench.parts --json ../var/parts.json       # six minutes; --write-docs puts the tables into docs/performance.md

Everything shares two cores, as in the guard. Exit code 0 when all of it could be measured, whether a target was met or not.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec
import structlog

from bench.alone import Duel, gate_duels
from bench.connections import Connections, measure_connections
from bench.idle import Idle, measure_idle
from bench.inspection import Inspection, inspect
from bench.machine import Machine, machine
from bench.network import enter_network
from bench.processes import keep_to_two_cores
from bench.report import table, write_between_markers
from bench.run import PAGE, private_directory
from bench.workers import Screened, Workers, measure_workers

MARKERS = ("<!-- parts:begin -->", "<!-- parts:end -->")
_GATE_TARGETS = {"4k": 1.5, "50k": 3.0}  # times stock aiosmtpd
_INSPECTION_MS = {"50k": 0.5}
_WORKER_RATE = 1000  # messages/s
_WORKER_GROWTH = 1.8  # from one worker to two
_IDLE_MB = 350
_START_S = 5
_CONNECTION_KB = 40
_HONEST_MS = 1000


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    machine: Machine
    options: str
    took_s: float
    gate: list[Duel]
    inspection: list[Inspection]
    workers: Workers
    idle: Idle
    connections: Connections


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """One target and what was measured."""

    what: str
    target: str
    measured: str
    met: bool


def marks(parts: Parts) -> Iterator[Mark]:
    """Each target, met or not."""
    for found in parts.gate:
        if target := _GATE_TARGETS.get(found.mix):
            ways = {
                "messages/s, broker and generator on the same two cores": found.rate,
                "CPU of the gate's process": found.cpu("gate"),
            }
            for way, ratio in ways.items():
                what = f"gate alone, {found.mix}, {way}"
                yield Mark(what=what, target=f"≥ {target:g} × aiosmtpd", measured=f"{ratio:.2f} ×", met=ratio >= target)
    for each in parts.inspection:
        if most := _INSPECTION_MS.get(each.mix):
            what = f"inspection, {each.mix}, CPU of a message"
            yield Mark(what=what, target=f"≤ {most:g} ms", measured=f"{each.ms:.2f} ms", met=each.ms <= most)
    workers, idle = parts.workers, parts.idle
    yield Mark(
        what=f"one screener worker with the broker, {workers.mix}",
        target=f"≥ {_WORKER_RATE} messages/s",
        measured=f"{workers.rate:.0f}",
        met=workers.rate >= _WORKER_RATE,
    )
    yield Mark(
        what="two screener workers where inspection is the load",
        target=f"≥ {_WORKER_GROWTH} × one",
        measured=f"{workers.growth:.2f} ×",
        met=workers.growth >= _WORKER_GROWTH,
    )
    yield Mark(
        what="embedded stack, idle, memory",
        target=f"≤ {_IDLE_MB} MB",
        measured=f"{idle.whole_mb:.0f} MB",
        met=idle.whole_mb <= _IDLE_MB,
    )
    many = parts.connections
    for what, cost_kb in (("an idle connection", many.idle_kb), ("an idle connection inside TLS", many.idle_tls_kb)):
        target = f"≤ {_CONNECTION_KB} KB"
        yield Mark(what=f"{what}, memory", target=target, measured=f"{cost_kb:.1f} KB", met=cost_kb <= _CONNECTION_KB)
    yield Mark(
        what=f"an honest client beside {many.idle:,} idle and {many.dripping:,} dripping ones",
        target=f"250 within {_HONEST_MS} ms",
        measured=f"{many.honest_ms:.0f} ms; the gate takes {many.all_mb:.0f} MB",
        met=many.honest_ms <= _HONEST_MS,
    )
    took_s = idle.first_start_s
    yield Mark(what="start to first mail", target=f"≤ {_START_S} s", measured=f"{took_s:.1f} s", met=took_s <= _START_S)


def markdown(parts: Parts) -> str:
    """The marks, then the figures behind them."""
    return "\n\n".join(
        (
            f"{parts.machine.sentence}. Run: `{parts.options}`, {parts.took_s / 60:.1f} minutes.",
            table(
                ("part", "target", "measured", ""),
                [(mark.what, mark.target, mark.measured, "met" if mark.met else "**not met**") for mark in marks(parts)],
            ),
            "Gate and stock aiosmtpd, medians of the rounds; ratios are medians of the rounds' ratios:",
            table(
                (
                    "size",
                    "rounds",
                    "gate, messages/s",
                    "aiosmtpd, messages/s",
                    "ratio (lowest–highest)",
                    "CPU ms: gate",
                    "broker",
                    "aiosmtpd",
                ),
                [_duel_row(found) for found in parts.gate],
            ),
            "Inspection with 1,000 phrases, 50 extensions and 200 senders:",
            table(
                ("mix", "CPU ms/message", "lowest–highest of the rounds"),
                [
                    (each.mix, f"{each.ms:.3f}", f"{min(each.ms_per_message):.3f}–{max(each.ms_per_message):.3f}")
                    for each in parts.inspection
                ],
            ),
            "Screener workers alone with the broker, medians of the rounds:",
            table(
                ("workers", "rules", "messages/s (lowest–highest)", "CPU ms a message: screener", "broker"),
                [
                    _workers_row("1", f"as above, {parts.workers.mix}", parts.workers.rules_only),
                    _workers_row("1", "inspection is the load", parts.workers.one),
                    _workers_row("2", "inspection is the load", parts.workers.two),
                ],
            ),
            f"Memory after {parts.idle.idle_s:g} s of idling, MB: "
            + ", ".join(f"{name} {memory:.0f}" for name, memory in parts.idle.memory_mb.items())
            + f". Start to first mail: {parts.idle.first_start_s:.1f} s on an empty directory, {parts.idle.second_start_s:.1f} s afterwards.",
        )
    )


def _duel_row(found: Duel) -> tuple[str, ...]:
    ratios = sorted(our.messages_per_s / their.messages_per_s for our, their in zip(found.ours, found.stock, strict=True))
    return (
        found.mix,
        str(len(ratios)),
        f"{median(each.messages_per_s for each in found.ours):.0f}",
        f"{median(each.messages_per_s for each in found.stock):.0f}",
        f"{found.rate:.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})",
        f"{median(each.cpu_ms_per_message['gate'] for each in found.ours):.2f}",
        f"{median(each.cpu_ms_per_message['broker'] for each in found.ours):.2f}",
        f"{median(each.cpu_ms for each in found.stock):.2f}",
    )


def _workers_row(number: str, under: str, runs: list[Screened]) -> tuple[str, ...]:
    rates = sorted(run.messages_per_s for run in runs)
    return (
        number,
        under,
        f"{median(rates):.0f} ({rates[0]:.0f}–{rates[-1]:.0f})",
        f"{median(run.screener_ms for run in runs):.2f}",
        f"{median(run.broker_ms for run in runs):.2f}",
    )


def measure_parts(
    below: Path, *, rounds: int, seconds: float, idle_s: float, connections: int, network: str, options: str
) -> Parts:
    """All of it, one part after another, in the network that `enter_network` gave."""
    begun = time.monotonic()
    with private_directory(below) as directory:
        what = machine(directory, network)
        print(what.sentence, flush=True)
        idle = measure_idle(directory, idle_s)
        many = measure_connections(directory, connections, max(connections // 10, 1))
        gate = gate_duels(tuple(_GATE_TARGETS), rounds, seconds, directory)
        workers = measure_workers(directory, rounds=min(rounds, 5), messages=max(int(seconds * 1500), 160))
    inspection = [inspect(mix, rounds, seconds) for mix in ("4k", "50k", "small", "mixed", "large")]
    took_s = round(time.monotonic() - begun, 1)
    return Parts(
        machine=what,
        options=options,
        took_s=took_s,
        gate=gate,
        inspection=inspection,
        workers=workers,
        idle=idle,
        connections=many,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="of each comparison (default 7)")
    parser.add_argument("--seconds", type=float, default=3, help="that each side of a round should take (default 3)")
    parser.add_argument("--idle-seconds", type=float, default=60, help="before memory is read (default 60)")
    parser.add_argument("--connections", type=int, default=10_000, help="idle ones, and a tenth of that dripping (default 10000)")
    parser.add_argument("--quick", action="store_true", help="to see that it works: its figures say nothing")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk, for streams (default /var/tmp)")
    parser.add_argument("--json", type=Path, default=None, help="write the figures")
    parser.add_argument("--write-docs", action="store_true", help="write the tables into docs/performance.md")
    arguments = parser.parse_args()
    if arguments.quick and arguments.write_docs:
        parser.error("the figures of --quick say nothing: they do not belong into the documentation")
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.idle_seconds, arguments.connections = 1, 0.1, 0.5, 200
    return arguments


def main() -> int:
    arguments = _arguments()
    # so that every server is stopped on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # what the provisioner of the bench's broker says does not belong between the tables
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    keep_to_two_cores()
    parts = measure_parts(
        arguments.directory,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        idle_s=arguments.idle_seconds,
        connections=arguments.connections,
        network=enter_network(),
        options=shlex.join(["bench.parts", *sys.argv[1:]]),
    )
    text = markdown(parts)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(parts), indent=2) + b"\n")
    if arguments.write_docs:
        write_between_markers(PAGE, text, MARKERS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
