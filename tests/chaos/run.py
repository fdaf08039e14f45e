"""`make chaos`: a stack under load, a seeded schedule of faults, and an audit of every 250.

    python -m chaos.run --stack embedded --seed 7 --seconds 120 --rate 40 --plot var/chaos.png

Exit code 0 when nothing is lost, every copy is explained and the books balance; 1 otherwise, 2 when there is no engine for
the stack "compose". The same seed replays the same faults on the same stack.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.audit import Findings, audit, table
from chaos.containers import ContainerTarget
from chaos.embedded import EmbeddedTarget
from chaos.faults import Injector
from chaos.load import DELETED_WORD, HELD_WORD, REFUSED, SteadyLoad
from chaos.schedule import plan
from chaos.target import Target
from chaos.timeline import Timeline, draw
from fixtures.containers import PROJECT, ContainerStack, base_image, engine_trouble


@contextmanager
def prepared(target: Target) -> Iterator[None]:
    """Inside the block each mail of the load comes to its fate, and what is deferred is tried again within seconds."""
    keyword = {"type": "keyword", "scope": "body"}
    with (
        target.schedule(intervals_s=[1, 2, 3], delay_notice_s=None, expiry_s=3600),
        target.rule({"name": "chaos hold", "condition": keyword | {"phrases": [HELD_WORD]}, "action": "hold"}),
        target.rule({"name": "chaos delete", "condition": keyword | {"phrases": [DELETED_WORD]}, "action": "delete"}),
        target.recipient_refused(REFUSED),
    ):
        yield


def chaos(target: Target, *, seed: int, seconds: float, rate: float, plot: Path | None = None) -> tuple[Findings, str]:
    """One run on a running stack: load and faults for `seconds`, then quiet, then the audit."""
    with prepared(target):
        load = SteadyLoad(target, seed=seed, rate=rate)
        injector = Injector(target, plan(seed, seconds, target.menu), load.record)
        timeline = Timeline(target, load.record)
        timeline.start()
        load.start()
        injector.start()
        time.sleep(seconds)
        injector.join(120)
        load.stop()
        findings = audit(target, load.record, injector.struck)
        timeline.stop()
    if plot is not None:
        draw(
            plot,
            timeline,
            injector.struck,
            f"seed {seed}: {findings.accepted} messages accepted, {len(findings.missing)} recipients lost",
        )
    return findings, table(findings, load.record, injector.struck)


@contextmanager
def _running(stack: str) -> Iterator[Target]:
    """A stack of the run's own, of which nothing stays."""
    with tempfile.TemporaryDirectory(prefix="postern-chaos-") as folder:
        state = Path(folder) / "var"
        if stack == "embedded":
            with EmbeddedTarget(state) as embedded:
                yield embedded
            return
        containers = ContainerStack(PROJECT, base_image())
        try:
            containers.build()
            with ContainerTarget(containers, state) as target:
                yield target
        finally:
            containers.remove()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", choices=("embedded", "compose"), default="embedded", help="what runs it (default embedded)")
    parser.add_argument("--seed", type=int, default=None, help="replays a run; default: a new one")
    parser.add_argument("--seconds", type=float, default=120, help="of load and faults (default 120)")
    parser.add_argument("--rate", type=float, default=40, help="messages a second offered (default 40)")
    parser.add_argument("--plot", type=Path, default=None, help="write a timeline as PNG")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    print(f"seed {seed}: {arguments.seconds:g} s of load at {arguments.rate:g} messages/s", flush=True)
    threading.excepthook = lambda failed: print(f"{failed.thread}: {failed.exc_value!r}", file=sys.stderr)
    if arguments.stack == "compose" and (trouble := engine_trouble()):
        print(f"needs a container engine with Compose: {trouble}", file=sys.stderr)
        return 2
    with _running(arguments.stack) as target:
        findings, text = chaos(target, seed=seed, seconds=arguments.seconds, rate=arguments.rate, plot=arguments.plot)
    print(text)
    print("good" if findings.good else f"NOT GOOD: replay with --stack {arguments.stack} --seed {seed}")
    return 0 if findings.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
