"""Fuzz the targets with atheris (libFuzzer, guided by coverage) for so many seconds; what breaks one is kept in var/fuzz and named.

    python -m fuzz.run --seconds 60 [--target mime]

The first octet of an input chooses the target, so that one process, started once, fuzzes all of them. Exit code 0: nothing was found.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ARTIFACTS = Path(__file__).parents[2] / "var" / "fuzz"
_WORDS = Path(__file__).with_name("mime.dict")
_UNIT_S = 10  # for one input; far more than any of this size takes
_MEMORY_MIB = 2048


def fuzz(arguments: list[str], only: str) -> None:
    """In a process of its own: libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["postern_screener"]):
        from fuzz.targets import MAX_OCTETS, TARGETS, seeds_of
    targets = [target for target in TARGETS if only in ("", target.__name__)]

    def one(data: bytes) -> None:
        if data:
            targets[data[0] % len(targets)](data[1:])

    with tempfile.TemporaryDirectory() as corpus:
        for place, target in enumerate(targets):
            for number, seed in enumerate(seeds_of(target)):
                (Path(corpus) / f"{place}-{number}").write_bytes(bytes([place]) + seed)
        atheris.Setup([sys.argv[0], *arguments, f"-max_len={MAX_OCTETS + 1}", f"-dict={_WORDS}", corpus], one)
        atheris.Fuzz()


def run(seconds: int, only: str = "") -> subprocess.CompletedProcess[str]:
    """Fuzz for `seconds`; the output says how many inputs ran, and what was found."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    limits = [
        f"-max_total_time={seconds}",
        f"-timeout={_UNIT_S}",
        f"-rss_limit_mb={_MEMORY_MIB}",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    command = [sys.executable, "-m", "fuzz.run", "--only", only, "--", *limits, f"-artifact_prefix={ARTIFACTS}/"]
    return subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=seconds + 120, check=False
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--target", default="")
    parser.add_argument("--only", default=None, help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only is not None:
        fuzz(chosen.rest, chosen.only)
        return 0
    done = run(chosen.seconds, chosen.target)
    print(done.stdout + done.stderr)
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
