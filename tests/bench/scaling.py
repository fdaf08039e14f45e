"""`make scaling`: how Postern's costs grow, measured on this machine, each against n log n.

    python -m bench.scaling --curves workers,backlog,rules,recipients,deferred --json ../var/scaling.json --plot ../var/scaling.png

Exit code 1 when a curve is worse than n log n (see bench/growth.py for the tolerance), or mail was lost on the way.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import structlog

from bench.curve_deferred import ROWS, deferred_curves
from bench.curve_rules import PATTERNS, rules_curves
from bench.curve_stack import BACKLOG, RECIPIENTS, WORKERS, Stored, backlog_curve, recipients_curve, workers_curve
from bench.growth import Curve
from bench.machine import Machine, machine
from bench.network import enter_network
from bench.report import table, write_between_markers
from bench.run import private_directory, several
from postern_delivery.store.database import DatabaseAway

CURVES = ("workers", "backlog", "rules", "recipients", "deferred")
PAGE = Path(__file__).resolve().parents[2] / "docs/performance.md"
MARKERS = ("<!-- scaling:begin -->", "<!-- scaling:end -->")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How far each curve goes."""

    workers: tuple[int, ...] = WORKERS
    backlog: tuple[int, ...] = BACKLOG
    recipients: tuple[int, ...] = RECIPIENTS
    patterns: tuple[int, ...] = PATTERNS
    rows: tuple[int, ...] = ROWS
    messages: int = 3000  # a point of `workers`
    deliveries: int = 20_000  # a point of `recipients`


QUICK = Sizes((1, 2), (10, 100), (1, 5), (10, 100), (50, 100), messages=100, deliveries=100)


class ScalingReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `stored` is what the `backlog` curve saw of the broker's streams."""

    machine: Machine
    options: str
    took_s: float
    curves: list[Curve]
    stored: Stored | None = None
    failed: dict[str, str] = {}

    @property
    def worse(self) -> list[str]:
        return [curve.name for curve in self.curves if curve.worse_than_n_log_n]


def encoded(report: ScalingReport) -> bytes:
    """As JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def decoded(data: bytes) -> ScalingReport:
    """What `encoded` wrote."""
    return msgspec.json.decode(data, type=ScalingReport)


def run(chosen: list[str], sizes: Sizes, *, network: str, below: Path, options: str) -> ScalingReport:
    """Measure the chosen curves, one after another. One that cannot be measured is in `failed`, the others go on."""
    begun = time.monotonic()
    with private_directory(below) as directory:
        what = machine(directory, network)
    print(what.sentence, flush=True)
    curves: list[Curve] = []
    failed: dict[str, str] = {}
    stored: Stored | None = None
    for name in chosen:
        try:
            for curve, seen in _measured(name, sizes, below):
                curves.append(curve)
                stored = stored or seen
                print(f"{curve.name}: {'; '.join(f'{point.n}: {point.told}' for point in curve.points)}", flush=True)
        except (RuntimeError, OSError, subprocess.SubprocessError, httpx.HTTPError, DatabaseAway) as trouble:
            failed[name] = str(trouble) or repr(trouble)
            print(f"{name}: {failed[name]}", file=sys.stderr, flush=True)
    took_s = round(time.monotonic() - begun, 1)
    return ScalingReport(machine=what, options=options, took_s=took_s, curves=curves, stored=stored, failed=failed)


def _measured(name: str, sizes: Sizes, below: Path) -> Iterator[tuple[Curve, Stored | None]]:
    """The curves that go by this name, each as soon as it is there."""
    match name:
        case "workers":
            yield workers_curve(sizes.workers, below=below, messages=sizes.messages), None
        case "backlog":
            yield backlog_curve(sizes.backlog, below=below)
        case "rules":
            yield from ((curve, None) for curve in rules_curves(sizes.patterns))
        case "recipients":
            yield recipients_curve(sizes.recipients, below=below, deliveries=sizes.deliveries), None
        case _:
            yield from ((curve, None) for curve in deferred_curves(sizes.rows, below=below))


def markdown(report: ScalingReport) -> str:
    """The table, with what was measured at each point."""
    return "\n\n".join(_sections(report))


def _sections(report: ScalingReport) -> Iterator[str]:
    yield f"{report.machine.sentence}. Run: `{report.options}`, {report.took_s / 60:.1f} minutes."
    rows = []
    for curve in report.curves:
        points = "<br>".join(f"{point.n:,}: {point.told}" for point in curve.points)
        exponent = "–" if curve.exponent is None else f"{curve.exponent:.2f}"
        judged = "**worse**" if curve.worse_than_n_log_n else "no worse"
        rows.append((curve.name, curve.n_is, curve.cost_is, points, exponent, f"{curve.steepest:.2f}", judged))
    yield table(("curve", "n", "cost", "measured", "exponent", "steepest step", "than n log n"), rows)
    if report.failed:
        yield "\n".join(f"- {name}: {why}" for name, why in report.failed.items())


def draw(path: Path, report: ScalingReport) -> None:
    """A small picture for each curve as PNG: cost, and where n log n would have led from its first point."""
    import matplotlib as mpl

    from bench.growth import weight

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = 3
    rows = max(-(-len(report.curves) // columns), 1)
    figure, axes = plt.subplots(rows, columns, figsize=(15, 4 * rows), squeeze=False)
    for place in axes.flat[len(report.curves) :]:
        place.axis("off")
    for place, curve in zip(axes.flat, report.curves, strict=False):
        sizes = [point.n for point in curve.points]
        first = curve.points[0]
        place.loglog(sizes, [point.cost for point in curve.points], "o-", label="measured")
        place.loglog(sizes, [first.cost * weight(n) / weight(first.n) for n in sizes], "--", color="grey", label="n log n")
        place.set_title(curve.name, fontsize=10)
        place.set_xlabel(curve.n_is, fontsize=8)
        place.set_ylabel(curve.cost_is, fontsize=8)
        place.legend(fontsize=7)
    figure.text(0.01, 0.005, report.machine.sentence, fontsize=6)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=several(CURVES), default=list(CURVES), help=f"default: {','.join(CURVES)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that the harness works: its figures say nothing")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk (default /var/tmp)")
    parser.add_argument("--json", type=Path, default=None, help="write the figures")
    parser.add_argument("--plot", type=Path, default=None, help="write a picture as PNG")
    parser.add_argument("--write-docs", action="store_true", help="write the table into docs/performance.md")
    arguments = parser.parse_args()
    if arguments.quick and arguments.write_docs:
        parser.error("the figures of --quick say nothing: they do not belong into the documentation")
    return arguments


def main() -> int:
    arguments = _arguments()
    # so that every stack is stopped on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sizes = QUICK if arguments.quick else Sizes()
    report = run(
        arguments.curves,
        sizes,
        network=enter_network(),
        below=arguments.directory,
        options=shlex.join(["bench.scaling", *sys.argv[1:]]),
    )
    text = markdown(report)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_bytes(encoded(report))
    if arguments.plot:
        draw(arguments.plot, report)
    if arguments.write_docs:
        write_between_markers(PAGE, text, MARKERS)
    if report.failed:
        return 1
    # two points close together say nothing about growth
    return 1 if report.worse and not arguments.quick else 0


if __name__ == "__main__":
    raise SystemExit(main())
