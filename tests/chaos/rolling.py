"""`make rolling`: every service and then the broker is restarted in turn under load through both gates; how long does a message wait?

    python -m chaos.rolling --rounds 3            # ended by SIGTERM, as an upgrade does it
    python -m chaos.rolling --rounds 3 --kill     # by SIGKILL: what is in hand waits until the broker gives it out again

What is promised: no accepted message waits longer from its 250 to its arrival at the smart host than the ack-wait and what the restarts
meanwhile lasted, and no two arrivals are further apart. Exit code 0 when that holds and the audit finds nothing missing.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from chaos.audit import Findings, audit
from chaos.embedded import EmbeddedTarget
from chaos.faults import Struck
from chaos.load import Record, SteadyLoad
from chaos.run import prepared
from chaos.schedule import SERVICES, Kind, PlannedFault
from chaos.target import Target
from fixtures.stack import eventually
from postern_core.bus.topology import BusLimits

ACK_WAIT_S = BusLimits().delivery_ack_wait.total_seconds()
BROKER = "nats-server"
_BETWEEN = 20  # arrivals between two restarts: mail flows again


@dataclass(frozen=True, slots=True)
class Wait:
    """A time without an arrival, of one message (its 250 to its last recipient's first copy) or of all of them."""

    from_s: float
    until_s: float
    what: str
    restarting_s: float  # how much of it something was being restarted

    @property
    def took_s(self) -> float:
        return self.until_s - self.from_s

    @property
    def kept(self) -> bool:
        """Whether it is within what is promised."""
        return self.took_s <= ACK_WAIT_S + self.restarting_s

    def __str__(self) -> str:
        return f"{self.took_s:.1f} s from {self.from_s:.1f} s on ({self.what}; restarting for {self.restarting_s:.1f} s of it)"


@dataclass(frozen=True, slots=True)
class Rolled:
    """What a run showed."""

    findings: Findings
    struck: list[Struck]
    waits: list[Wait]  # of each message that should arrive and did; the audit tells of the others
    gaps: list[Wait]  # between two arrivals

    @property
    def longest_wait(self) -> Wait:
        return max(self.waits, key=lambda wait: wait.took_s)

    @property
    def longest_gap(self) -> Wait:
        return max(self.gaps, key=lambda gap: gap.took_s)

    @property
    def broken(self) -> list[Wait]:
        """What took longer than is promised."""
        return [wait for wait in (*self.waits, *self.gaps) if not wait.kept]


def roll(target: EmbeddedTarget, *, rounds: int, rate: float, number: int = signal.SIGTERM, seed: int = 1) -> Rolled:
    """Under load: each service, then the broker, is ended by this signal and started again, `rounds` times all of them."""
    with prepared(target):
        load = SteadyLoad(target, seed=seed, rate=rate)
        load.start()
        struck: list[Struck] = []
        for service in (*SERVICES, BROKER) * rounds:
            _flowing(target)
            begun = load.record.now_s()
            _restart(target, service, number)
            ended = Kind.ROLLING_RESTART if number == signal.SIGTERM else Kind.KILL
            struck.append(Struck(PlannedFault(begun, ended, (service,), 0.0), begun, load.record.now_s()))
        _flowing(target)
        ended_s = load.record.now_s()
        load.stop()
        findings = audit(target, load.record, struck)
    return Rolled(findings, struck, waits(target, load.record, struck), gaps(target, load.record, struck, ended_s))


def _restart(target: EmbeddedTarget, service: str, number: int) -> None:
    """Returns when it is ready again: that is what a restart lasts."""
    target.kill(service, number=number)
    if service == BROKER:
        eventually(lambda: _healthy(target), "the broker to answer")
        return
    ready = target.state / "services" / service / "ready"
    ready.unlink(missing_ok=True)  # the old one's, which was not asked to tidy up
    eventually(ready.exists, f"{service} to be ready")


def _healthy(target: EmbeddedTarget) -> bool:
    with contextlib.suppress(OSError):
        return bool(target.monitor("healthz")["status"] == "ok")
    return False


def _flowing(target: EmbeddedTarget) -> None:
    wanted = target.smart_host_count() + _BETWEEN
    eventually(lambda: target.smart_host_count() >= wanted, "mail to arrive", 3 * ACK_WAIT_S)


def waits(target: Target, record: Record, struck: list[Struck]) -> list[Wait]:
    """Of each accepted message of which anything arrived, until the last of its recipients had it."""
    first: dict[tuple[str, str], float] = {}
    for arrival in target.arrivals():
        for recipient in arrival.recipients if arrival.reverse_path else ():
            first.setdefault((arrival.queue_id, recipient), arrival.at_s - record.started)
    found = []
    for accepted in record.accepted:
        arrived = [first.get((accepted.queue_id, recipient)) for recipient in accepted.mail.recipients]
        times = [at_s for at_s in arrived if at_s is not None]
        if times:
            found.append(_wait(accepted.at_s, max(times), accepted.queue_id, struck))
    return found


def gaps(target: Target, record: Record, struck: list[Struck], ended_s: float) -> list[Wait]:
    """Between two arrivals while there was load, which ended at `ended_s`."""
    times = sorted(arrival.at_s - record.started for arrival in target.arrivals())
    times = [at_s for at_s in times if at_s < ended_s]
    return [_wait(before, after, "between two arrivals", struck) for before, after in itertools.pairwise(times)]


def _wait(from_s: float, until_s: float, what: str, struck: list[Struck]) -> Wait:
    restarting_s = 0.0
    for each in struck:
        if (overlap := min(until_s, each.until_s) - max(from_s, each.from_s)) > 0:
            restarting_s += overlap
            what += f", {' '.join(each.fault.targets)}"
    return Wait(from_s, until_s, what, restarting_s)


def table(rolled: Rolled) -> str:
    """The result as text: what each restart lasted, and the longest wait that it was a part of."""
    lines = [f"{'':14} {'restart, s':>10} {'longest gap, s':>15} {'longest wait, s':>16}"]
    for service in (*SERVICES, BROKER):
        its = [each for each in rolled.struck if each.fault.targets == (service,)]
        gap, wait = (
            max((each.took_s for each in times if any(_touches(each, one) for one in its)), default=0.0)
            for times in (rolled.gaps, rolled.waits)
        )
        lasted_s = max(each.until_s - each.from_s for each in its)
        lines.append(f"{service:14} {lasted_s:10.1f} {gap:15.1f} {wait:16.1f}")
    lines += [
        f"{rolled.findings.accepted} messages accepted, {len(rolled.findings.missing)} recipients lost, {rolled.findings.copies} second copies",
        f"longest wait: {rolled.longest_wait}",
        f"longest gap: {rolled.longest_gap}",
    ]
    return "\n".join(lines)


def _touches(wait: Wait, struck: Struck) -> bool:
    return wait.from_s < struck.until_s and struck.from_s < wait.until_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often all of it is restarted (default 3)")
    parser.add_argument("--rate", type=float, default=30, help="messages a second offered (default 30)")
    parser.add_argument("--kill", action="store_true", help="by SIGKILL instead of SIGTERM")
    arguments = parser.parse_args()
    number = signal.SIGKILL if arguments.kill else signal.SIGTERM
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="postern-rolling-") as state, EmbeddedTarget(Path(state) / "var") as target:
        rolled = roll(target, rounds=arguments.rounds, rate=arguments.rate, number=number)
    print(table(rolled))
    for wait in rolled.broken[:20]:
        print(f"  ! {wait}")
    good = rolled.findings.good and not rolled.broken
    print(f"{'good' if good else 'NOT GOOD'}, took {time.monotonic() - began:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
