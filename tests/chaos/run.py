"""`make chaos`: a stack under load, a seeded schedule of faults, and an audit of every 250.

    python -m chaos.run --seed 7 --seconds 120 --rate 40 --plot var/chaos.png

Exit code 0 when nothing is lost, every copy is explained and the books balance; 1 otherwise. The same seed replays the same faults.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from chaos.audit import Findings, audit, table
from chaos.faults import Injector
from chaos.load import DELETED_WORD, HELD_WORD, REFUSED, SteadyLoad
from chaos.schedule import plan
from chaos.timeline import Timeline, draw
from fixtures.relay import Relay


def chaos(relay: Relay, *, seed: int, seconds: float, rate: float, plot: Path | None = None) -> tuple[Findings, str]:
    """One run on a running stack: load and faults for `seconds`, then quiet, then the audit."""
    keyword = {"type": "keyword", "scope": "body"}
    with (
        relay.schedule(intervals_s=[1, 2, 3], delay_notice_s=None, expiry_s=3600),
        relay.rule({"name": "chaos hold", "condition": keyword | {"phrases": [HELD_WORD]}, "action": "hold"}),
        relay.rule({"name": "chaos delete", "condition": keyword | {"phrases": [DELETED_WORD]}, "action": "delete"}),
        relay.smart_host.answering_rcpt(REFUSED, "550 5.1.1 no such user"),
    ):
        load = SteadyLoad(relay, seed=seed, rate=rate)
        injector = Injector(relay, plan(seed, seconds), load.record)
        timeline = Timeline(relay, load.record)
        timeline.start()
        load.start()
        injector.start()
        time.sleep(seconds)
        injector.join(120)
        load.stop()
        findings = audit(relay, load.record, injector.struck)
        timeline.stop()
    if plot is not None:
        draw(
            plot,
            timeline,
            injector.struck,
            f"seed {seed}: {findings.accepted} messages accepted, {len(findings.missing)} recipients lost",
        )
    return findings, table(findings, load.record, injector.struck)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=None, help="replays a run; default: a new one")
    parser.add_argument("--seconds", type=float, default=120, help="of load and faults (default 120)")
    parser.add_argument("--rate", type=float, default=40, help="messages a second offered (default 40)")
    parser.add_argument("--plot", type=Path, default=None, help="write a timeline as PNG")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    print(f"seed {seed}: {arguments.seconds:g} s of load at {arguments.rate:g} messages/s", flush=True)
    threading.excepthook = lambda failed: print(f"{failed.thread}: {failed.exc_value!r}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="postern-chaos-") as state, Relay(Path(state) / "var") as relay:
        findings, text = chaos(relay, seed=seed, seconds=arguments.seconds, rate=arguments.rate, plot=arguments.plot)
    print(text)
    print("good" if findings.good else f"NOT GOOD: replay with --seed {seed}")
    return 0 if findings.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
