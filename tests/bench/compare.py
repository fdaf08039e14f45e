"""Postern of this checkout and of others, in turn on one machine: what a change is worth.

    git worktree add ../before main && make -C ../before .venv/dev.stamp
    cd tests && ../.venv/bin/python -m bench.compare ../../before --mixes small --rounds 3

Each checkout is run by its own interpreter and measured by its own `bench.run`. A line for each round, and the ratio of the medians to the first
checkout's, which is the one given first. Exit code 1 when a run failed, lost something or sent it twice.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import msgspec

from bench.measure import Measured
from bench.mix import MIXES
from bench.report import Report
from bench.run import several

_HERE = Path(__file__).resolve().parents[2]
Key = tuple[str, str, int, int]  # Entry.key
Figures = dict[Key, list[Measured]]


def measured(checkout: Path, mixes: Sequence[str], seconds: float) -> Report:
    """One `bench.run` of Postern in `checkout`. CalledProcessError when it failed."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [str(checkout / ".venv/bin/python"), "-m", "bench.run", "--systems", "postern", "--mixes", ",".join(mixes)]
        command += ["--seconds", str(seconds), "--json", str(report)]
        subprocess.run(command, cwd=checkout / "tests", check=True, stdout=subprocess.DEVNULL)
        return msgspec.json.decode(report.read_bytes(), type=Report)


def line(name: str, entry: Key, one: Measured) -> str:
    """What a round says of one load."""
    mix, load, connections, per_connection = entry
    cpu = ", ".join(f"{service} {ms:.2f}" for service, ms in one.cpu_ms_per_message.items() if ms >= 0.005)
    return (
        f"{name:12} {mix:6} {load:4} {connections:3} × {per_connection:2}: {one.messages_per_s:5.0f}/s, p50 {one.latency_p50_ms:.0f} ms, "
        f"p99 {one.latency_p99_ms:.0f} ms, CPU ms {cpu}, {one.elsewhere_cores:.2f} cores busy elsewhere"
    )


def ratios(figures: dict[Path, Figures]) -> Iterator[str]:
    """The medians of every checkout against the first one's."""
    first, *others = figures
    for entry, before in figures[first].items():
        for other in others:
            after = figures[other][entry]
            what = " ".join(str(part) for part in entry)
            yield (
                f"{other.name} ÷ {first.name}, {what}: messages/s {_of(after, 'messages_per_s') / _of(before, 'messages_per_s'):.3f}, "
                f"CPU {_cpu(after) / _cpu(before):.3f}, p99 {_of(after, 'latency_p99_ms') / _of(before, 'latency_p99_ms'):.2f}"
            )


def _of(several_measured: Sequence[Measured], field: str) -> float:
    return float(median(getattr(each, field) for each in several_measured))


def _cpu(several_measured: Sequence[Measured]) -> float:
    return median(each.cpu_ms_per_message["all"] for each in several_measured)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("others", nargs="+", type=Path, help="checkouts to compare this one with, each with a .venv of its own")
    parser.add_argument("--mixes", type=several(MIXES), default=["small", "mixed"], help="default: small,mixed")
    parser.add_argument("--seconds", type=float, default=5, help="that one measurement should take (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    arguments = parser.parse_args()
    figures: dict[Path, Figures] = {path.resolve(): defaultdict(list) for path in (*arguments.others, _HERE)}
    for _ in range(arguments.rounds):
        for checkout, of_it in figures.items():
            report = measured(checkout, arguments.mixes, arguments.seconds)
            for entry in report.systems[0].entries:
                of_it[entry.key].append(entry.measured)
                print(line(checkout.name, entry.key, entry.measured), flush=True)
    print("\n".join(ratios(figures)))
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{failed.cmd[0]} ended with {failed.returncode}")
