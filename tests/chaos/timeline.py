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
    from fixtures.relay import Relay

_ON_THE_WAY = ("INTAKE", "OUTBOUND", "DEFERRED")


@dataclass(frozen=True, slots=True)
class Sample:
    """Totals at one moment."""

    at_s: float
    accepted: int
    arrived: int
    backlog: int | None  # messages in INTAKE, OUTBOUND and DEFERRED; None: the broker did not say


class Timeline:
    """Samples every half second from `start` to `stop`."""

    def __init__(self, relay: Relay, record: Record) -> None:
        self._relay = relay
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
        while not self._stopped.wait(0.5):
            backlog = self._backlog()
            self.samples.append(Sample(self._record.now_s(), len(self._record.accepted), self._relay.smart_host_count(), backlog))

    def _backlog(self) -> int | None:
        try:
            streams = self._relay.streams()
        except (OSError, ValueError):
            return None
        return sum(streams[name]["messages"] for name in _ON_THE_WAY if name in streams)


def draw(path: Path, timeline: Timeline, struck: list[Struck], title: str) -> None:
    """Write the picture: accepted and arrived messages a second above, what lies in the streams below, faults as bands."""
    samples = timeline.samples
    figure, (rates, backlog) = plt.subplots(2, 1, sharex=True, figsize=(12, 7))
    for name, pick in (("accepted", lambda s: s.accepted), ("at the smart host", lambda s: s.arrived)):
        points = [(b.at_s, (pick(b) - pick(a)) / (b.at_s - a.at_s)) for a, b in itertools.pairwise(samples)]
        rates.plot(*zip(*points, strict=True), label=name, linewidth=1)
    rates.set_ylabel("messages/s")
    rates.legend(loc="upper right")
    rates.set_title(title)
    waiting = [nan if s.backlog is None else s.backlog for s in samples]
    backlog.plot([s.at_s for s in samples], waiting, color="tab:red", linewidth=1)
    backlog.set_ylabel(f"messages in {', '.join(_ON_THE_WAY)}", fontsize=8)
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
