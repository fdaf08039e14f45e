"""Rates and backlog over time, and the picture of them with the faults."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
import itertools

from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from chaos.faults import Struck
    from chaos.load import Record
    from chaos.target import Target

ON_THE_WAY = ("INTAKE", "OUTBOUND", "DEFERRED")


@dataclass(frozen=True, slots=True)
class Sample:
    """Totals at one moment."""

    at_s: float
    accepted: int
    arrived: int | None  # None: the smart host did not say
    backlog: int | None  # messages in INTAKE, OUTBOUND and DEFERRED; None: the broker did not say


class Timeline:
    """Samples every so often, as the target says, from `start` to `stop`."""

    def __init__(self, target: Target, record: Record) -> None:
        self._target = target
        self._record = record
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)
        self.samples: list[Sample] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        target, record = self._target, self._record
        while not self._stopped.wait(target.sample_every_s):
            backlog, arrived = target.backlog(), target.arrived_count()
            self.samples.append(Sample(record.now_s(), len(record.accepted), arrived, backlog))


def draw(path: Path, timeline: Timeline, struck: list[Struck], title: str) -> None:
    """Write the picture: accepted and arrived messages a second above, what lies in the streams below, faults as bands."""
    samples = timeline.samples
    figure, (rates, backlog) = plt.subplots(2, 1, sharex=True, figsize=(12, 7))
    for name, pick in (("accepted", lambda s: s.accepted), ("at the smart host", lambda s: s.arrived)):
        known = [(sample.at_s, total) for sample in samples if (total := pick(sample)) is not None]
        points = [(at_s, (total - before) / (at_s - then_s)) for (then_s, before), (at_s, total) in itertools.pairwise(known)]
        rates.plot(*zip(*points, strict=True), label=name, linewidth=1)
    rates.set_ylabel("messages/s")
    rates.legend(loc="upper right")
    rates.set_title(title)
    waiting = [nan if s.backlog is None else s.backlog for s in samples]
    backlog.plot([s.at_s for s in samples], waiting, color="tab:red", linewidth=1)
    backlog.set_ylabel(f"messages in {', '.join(ON_THE_WAY)}", fontsize=8)
    backlog.set_xlabel("seconds")
    for each in struck:
        for axes in (rates, backlog):
            axes.axvspan(each.from_s, max(each.until_s, each.from_s + 0.2), color="grey", alpha=0.25, linewidth=0)
        rates.annotate(
            f"{each.fault.kind.value} {' '.join(each.fault.targets)[:24]}",
            (each.from_s, 0.98),
            xycoords=("data", "axes fraction"),
            rotation=90,
            fontsize=6,
            va="top",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
