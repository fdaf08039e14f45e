"""`make guard`: whether Postern has become slower, by ratios that were measured in one run, in about a minute.

    python -m bench.guard                # exit code 0; 1 when a ratio fell by more than a quarter; 2 when it could not be measured
    python -m bench.guard --renew        # three runs, the lowest of each ratio into reference.json

Ratios, all of them the better the higher: gate alone against stock aiosmtpd, whole stack against stock aiosmtpd, inspection against a loop of
plain Python. Each is the median of rounds in which both sides take turns. A ratio that fell is measured once more, and the better of both
counts: what else the machine does must not fail it. Messages/s are left out, and it says so, when others were busy meanwhile: more of our
processes than of aiosmtpd's then wait for a core. Everything shares two cores, however many there are.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import msgspec
import structlog

from bench.alone import Taken, duel, gate_duels, sender
from bench.inspection import inspect
from bench.measure import Load, Running, measure, running_sink
from bench.network import enter_network
from bench.postern import running_postern
from bench.processes import busy_s, cpu_s, keep_to_two_cores
from bench.report import table
from bench.run import private_directory
from bench.stock import stock_aiosmtpd
from fixtures.ports import free_port

REFERENCE = Path(__file__).with_name("reference.json")
TOLERATED = 0.25  # of a reference: the rest of the difference between two runs is the machine's
_RENEWING_RUNS = 3
_BUSY_CORES = (
    0.35  # spent by others: messages/s then say more about them than about us. Kernel threads that sync are a tenth or two of it
)
_RATE = "messages/s"
_STACK_MIX = "small"

Section = Callable[[], dict[str, float]]  # figures that are measured together, by name


@dataclass(frozen=True, slots=True)
class Effort:
    """How long it measures: `rounds` times `seconds` of each side."""

    rounds: int = 5
    seconds: float = 0.8
    busy_cores: float = _BUSY_CORES


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One ratio and what it should be."""

    name: str
    measured: float
    reference: float

    @property
    def fell(self) -> float:
        """By which part of the reference; below 0 when it rose."""
        return 1 - self.measured / self.reference

    @property
    def failed(self) -> bool:
        return self.fell > TOLERATED


def compare(measured: Mapping[str, float], reference: Mapping[str, float]) -> list[Compared]:
    """Each figure with its reference. LookupError names those that have none."""
    if missing := sorted(measured.keys() - reference.keys()):
        raise LookupError(f"no reference for {', '.join(missing)}: make guard REFERENCE=1")
    return [Compared(name=name, measured=value, reference=reference[name]) for name, value in measured.items()]


def judge(sections: Mapping[str, Section], reference: Mapping[str, float]) -> list[Compared]:
    """Measure all sections, those with a ratio that fell twice: then the better one of each counts."""
    all_compared: list[Compared] = []
    for name, section in sections.items():
        measured = section()
        compared = compare(measured, reference)
        if fallen := [each.name for each in compared if each.failed]:
            print(f"{name}: {', '.join(fallen)} fell, once more", flush=True)
            again = section()
            compared = compare({figure: max(value, again.get(figure, value)) for figure, value in measured.items()}, reference)
        all_compared += compared
    return all_compared


def lowest(sections: Mapping[str, Section], runs: int) -> dict[str, float]:
    """The low end of each ratio in so many runs, as a reference: what a run reaches also when the machine is not quite quiet."""
    seen = [{name: value for section in sections.values() for name, value in section().items()} for _ in range(runs)]
    if any(each.keys() != seen[0].keys() for each in seen) or not any(name.endswith(_RATE) for name in seen[0]):
        raise RuntimeError("the machine is too busy for a reference")
    return {name: min(each[name] for each in seen) for name in seen[0]}


def report(compared: list[Compared]) -> str:
    """A table, and the verdict in a sentence."""
    rows = [
        (
            each.name,
            f"{each.measured:.2f}",
            f"{each.reference:.2f}",
            f"{each.measured / each.reference - 1:+.0%}",
            "FELL" if each.failed else "ok",
        )
        for each in compared
    ]
    failed = sum(each.failed for each in compared)
    verdict = f"{failed} of {len(compared)} fell by more than {TOLERATED:.0%}, twice" if failed else "no regression"
    return f"{table(('ratio', 'measured', 'reference', 'change', ''), rows)}\n\nguard: {verdict}"


# --- what is measured


def sections(effort: Effort, below: Path) -> dict[str, Section]:
    """Of the real thing."""
    whole = {
        "gate, 4 KB": partial(_gate, "4k", effort, below),
        "gate, 50 KB": partial(_gate, "50k", effort, below),
        "stack": partial(_stack, effort, below),
        "inspection": partial(_inspection, effort),
    }
    return {name: partial(_watched, name, section, effort.busy_cores) for name, section in whole.items()}


def _watched(name: str, section: Section, busy_cores: float) -> dict[str, float]:
    """What the section gives, without messages/s when others kept more than `busy_cores` busy."""
    busy, own, begun = busy_s(), cpu_s([os.getpid()]), time.monotonic()
    measured = section()
    elsewhere = ((busy_s() - busy) - (cpu_s([os.getpid()]) - own)) / (time.monotonic() - begun)
    kept = judged(measured, elsewhere, busy_cores)
    if kept.keys() != measured.keys():
        print(f"{name}: {elsewhere:.2f} cores busy elsewhere, messages/s say nothing: not judged", flush=True)
    return kept


def judged(measured: Mapping[str, float], elsewhere: float, busy_cores: float) -> dict[str, float]:
    """Those figures that say something about us although others kept `elsewhere` cores busy."""
    return {name: value for name, value in measured.items() if elsewhere <= busy_cores or not name.endswith(_RATE)}


def _gate(mix: str, effort: Effort, below: Path) -> dict[str, float]:
    with private_directory(below) as directory:
        (found,) = gate_duels((mix,), effort.rounds, effort.seconds, directory)
    return {f"gate {mix}, {_RATE}": round(found.rate, 3), f"gate {mix}, CPU": round(found.cpu(), 3)}


def _stack(effort: Effort, below: Path) -> dict[str, float]:
    with private_directory(below) as directory:
        port, arrivals = free_port(), directory / "arrivals.bin"
        with (
            stock_aiosmtpd(directory) as stock,
            running_sink(port, arrivals) as sink_pid,
            running_postern(directory / "var", port) as stack,
        ):
            running = Running(stack.address("anon")[1], stack.endpoints["processes"])
            numbers = itertools.count(step=1_000_000)

            def relay(messages: int) -> Taken:
                load = Load(_STACK_MIX, messages, first=next(numbers))
                got = measure(running, load, screened=True, sink_pid=sink_pid, arrivals=arrivals, sent=directory / "relayed.bin")
                if got.lost or got.copies or got.passed:
                    raise RuntimeError(f"{got.lost} lost, {got.copies} copies, {got.passed} past a rule")
                cpu_ms = {name: ms for name, ms in got.cpu_ms_per_message.items() if name != "all"}
                return Taken(messages_per_s=got.messages_per_s, cpu_ms_per_message=cpu_ms)

            messages = max(200, round(relay(200).messages_per_s * 2 * effort.seconds))
            theirs = sender(stock, _STACK_MIX, effort.seconds, directory)
            found = duel(_STACK_MIX, lambda: relay(messages), theirs, effort.rounds)
    return {f"stack, {_RATE}": round(found.rate, 3), "stack, CPU": round(found.cpu(), 3)}


def _inspection(effort: Effort) -> dict[str, float]:
    return {"inspection 50k, CPU": round(inspect("50k", 2 * effort.rounds - 1, effort.seconds / 4).per_loop, 3)}


# --- the command


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renew", action="store_true", help="write the reference instead of comparing with it")
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="default: the committed one")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk (default /var/tmp)")
    parser.add_argument("--quick", action="store_true", help="too short to say anything: to see that it works")
    arguments = parser.parse_args()
    if arguments.quick and arguments.renew and arguments.reference == REFERENCE:
        parser.error("the figures of --quick say nothing: they are no reference")
    return arguments


def decide(measured: Mapping[str, Section], reference: Path, *, renew: bool, runs: int = _RENEWING_RUNS) -> int:
    """Measure, and compare or write; returns the exit code."""
    try:
        if renew:
            found = lowest(measured, runs)
            reference.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
            print(f"{reference}: {found}")
            return 0
        compared = judge(measured, msgspec.json.decode(reference.read_bytes(), type=dict[str, float]))
    except (RuntimeError, LookupError, OSError, subprocess.SubprocessError, httpx.HTTPError, msgspec.DecodeError) as trouble:
        print(f"guard: could not be measured: {trouble}", file=sys.stderr)
        return 2
    print(report(compared))
    return 1 if any(each.failed for each in compared) else 0


def main() -> int:
    arguments = _arguments()
    # so that every server is stopped on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # what the provisioner of the bench's broker says does not belong into the table
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    keep_to_two_cores()
    print(f"guard: {enter_network()}")
    effort, runs = (Effort(1, 0.1, math.inf), 1) if arguments.quick else (Effort(), _RENEWING_RUNS)
    begun = time.monotonic()
    code = decide(sections(effort, arguments.directory), arguments.reference, renew=arguments.renew, runs=runs)
    print(f"guard: took {time.monotonic() - begun:.0f} s")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
