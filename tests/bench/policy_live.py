"""How long a policy change takes until every replica of an embedded stack runs it and has said so.

    python -m bench.policy_live --changes 50

Exit code 1 when one took longer than a second. It counts from the request to the api until `/status` shows the new revision everywhere, so the
reports' way back is in it, too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from fixtures.stack import Stack

_PROMISED_S = 1.0


def measure(stack: Stack, changes: int) -> list[float]:
    """Seconds of each change, in order; each adds a relay domain."""
    took = []
    for number in range(changes):
        begun = time.monotonic()
        stack.api.post("/domains", json={"pattern": f"change-{number}.example"}).raise_for_status()
        while True:
            status = stack.api.get("/status").raise_for_status().json()
            if status["live_on"] == len(status["replicas"]):
                break
        took.append(time.monotonic() - begun)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="postern-live-") as state, Stack(Path(state) / "var") as stack:
        took = sorted(measure(stack, arguments.changes))
    print(f"{len(took)} changes, live everywhere: median {took[len(took) // 2] * 1000:.0f} ms, slowest {took[-1] * 1000:.0f} ms")
    return 0 if took[-1] < _PROMISED_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
