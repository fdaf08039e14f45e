"""The picture of a run: throughput against plain Postfix, latency at half load, and where the CPU time goes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from bench.mix import MIXES
from bench.report import YARDSTICK, Report, SystemResult

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


def draw(path: Path, report: Report) -> None:
    """Write it as PNG."""
    figure, (throughput, latency, cpu) = plt.subplots(1, 3, figsize=(15, 5))
    _bars(throughput, report, "full", "messages_per_s")
    throughput.set_title("full load: messages/s, × plain Postfix above the bar")
    _bars(latency, report, "half", "latency_p99_ms")
    latency.set_title("half load: p99 latency, ms")
    for axes in (throughput, latency):
        axes.set_yscale("log")
        axes.set_ylim(top=axes.get_ylim()[1] * 1.5)
    _cpu(cpu, report)
    figure.text(0.01, 0.01, report.machine.sentence, fontsize=6)
    figure.legend(*throughput.get_legend_handles_labels(), loc="lower right", ncols=6, fontsize=7)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _value(system: SystemResult, mix: str, load: str, what: str) -> float:
    entries = (entry for entry in system.entries if entry.standard and entry.load == load and entry.measured.mix == mix)
    return next((getattr(entry.measured, what) for entry in entries), float("nan"))


def _bars(axes: Axes, report: Report, load: str, what: str) -> None:
    mixes = [mix for mix in MIXES if any(entry.measured.mix == mix for system in report.systems for entry in system.entries)]
    width = 0.8 / max(len(report.systems), 1)
    yardstick = next((system for system in report.systems if system.name == YARDSTICK), None)
    for number, system in enumerate(report.systems):
        values = [_value(system, mix, load, what) for mix in mixes]
        bars = axes.bar([position + number * width for position in range(len(mixes))], values, width, label=system.name)
        if load == "full" and yardstick:
            ratios = [value / _value(yardstick, mix, load, what) for mix, value in zip(mixes, values, strict=True)]
            axes.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], fontsize=6, rotation=90, padding=2)
    axes.set_xticks([position + 0.4 - width / 2 for position in range(len(mixes))], mixes)


def _cpu(axes: Axes, report: Report) -> None:
    """Of the mixed load, or of the only one that there is."""
    mixes = [entry.measured.mix for system in report.systems for entry in system.entries]
    if not mixes:
        return
    mix = "mixed" if "mixed" in mixes else mixes[0]
    for system in report.systems:
        entries = (entry for entry in system.entries if entry.standard and entry.load == "full" and entry.measured.mix == mix)
        below = 0.0
        for entry in entries:
            for name, value in entry.measured.cpu_ms_per_message.items():
                if name != "all":
                    axes.bar(system.name, value, bottom=below)
                    if value > 0.05 * entry.measured.cpu_ms_per_message["all"]:
                        axes.text(system.name, below + value / 2, name, ha="center", va="center", fontsize=6)
                    below += value
    axes.set_title(f"{mix}: CPU ms a message, by service")
    axes.tick_params(axis="x", labelrotation=30, labelsize=7)
