"""Policies with lists of 100,000 values: how long they take to compile, how long the event loop waits meanwhile and at the swap, and the memory.

    python -m bench.lists           # a minute; --write-docs puts the table into docs/performance.md

Each row is a process of its own, which imports what a worker does, runs uvloop, and gives freed memory back as a worker does.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import uvloop

from bench.machine import machine
from bench.report import table, write_between_markers
from bench.rules import phrases
from bench.run import PAGE
from postern_core.heap import keep_large_blocks
from postern_core.policy import (
    AttachmentCondition,
    AttachmentMatch,
    Condition,
    KeywordCondition,
    ListKind,
    NamedList,
    Rule,
    ScreeningPolicy,
    SenderCondition,
    decode_section,
    encode_section,
)
from postern_core.verdict import Action
from postern_screener import app as _app  # noqa: F401  (what a worker has in memory)
from postern_screener.ruleset import Ruleset, compile_policy

MARKERS = ("<!-- lists:begin -->", "<!-- lists:end -->")
VALUES = 100_000
_BEAT_S = 0.001
_SETTLED_S = 12.0  # two looks of `keep_large_blocks`, and some
KINDS: dict[str, tuple[ListKind, Condition, Callable[[int, str], str]]] = {
    "phrases": (ListKind.PHRASES, KeywordCondition(lists=("phrases",)), lambda _, words: words),
    "senders": (
        ListKind.SENDERS,
        SenderCondition(lists=("senders",)),
        lambda n, words: words.replace(" ", "@" if n % 2 else ".") + ".example",
    ),
    "extensions": (
        ListKind.EXTENSIONS,
        AttachmentCondition(match=AttachmentMatch.EXTENSION, lists=("extensions",)),
        lambda _, words: words.replace(" ", ""),
    ),
}
ROWS: tuple[tuple[str, ...], ...] = (("phrases",), ("senders",), ("extensions",), ("phrases", "senders", "extensions"))


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One process."""

    section_bytes: int
    compile_s: float  # the slowest of three
    pause_ms: float  # the longest of the event loop, compiling or swapping
    before_mb: float
    after_mb: float
    peak_mb: float


def section(kinds: Sequence[str], seed: int) -> bytes:
    """A policy with a list of each kind, and a rule that names it."""
    words = list(phrases(random.Random(f"lists/{seed}"), VALUES))
    lists = [NamedList.of(name, KINDS[name][0], (KINDS[name][2](n, each) for n, each in enumerate(words))) for name in kinds]
    rules = [Rule(id=name, name=name, condition=KINDS[name][1], action=Action.DELETE) for name in kinds]
    return encode_section(ScreeningPolicy(revision=seed, rules=tuple(rules), lists=tuple(lists)))


async def measure(sections: Sequence[bytes]) -> Measured:
    """In this process. The values were made in another one."""
    stop = asyncio.Event()
    heap = asyncio.create_task(keep_large_blocks(stop))
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while not stop.is_set():
            begun = time.perf_counter()
            await asyncio.sleep(_BEAT_S)
            longest = max(longest, time.perf_counter() - begun - _BEAT_S)

    def compiled(data: bytes) -> Ruleset:
        return compile_policy(decode_section(data, ScreeningPolicy))

    beating = asyncio.create_task(beat())
    before, took = _memory_mb("VmRSS"), []
    in_force: Ruleset | None = None
    for data in sections:
        begun = time.perf_counter()
        in_force = await asyncio.to_thread(compiled, data)  # the swap: the one before it is freed here
        took.append(time.perf_counter() - begun)
        await asyncio.sleep(0.1)
    pause = longest
    await asyncio.sleep(_SETTLED_S)
    assert in_force is not None
    stop.set()
    await asyncio.gather(heap, beating)
    return Measured(
        section_bytes=len(sections[0]),
        compile_s=max(took),
        pause_ms=pause * 1000,
        before_mb=before,
        after_mb=_memory_mb("VmRSS"),
        peak_mb=_memory_mb("VmHWM"),
    )


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:"))


def in_a_process(kinds: Sequence[str]) -> Measured:
    """As `measure`."""
    made = msgspec.json.encode([section(kinds, seed) for seed in (1, 2, 3)])
    command = [sys.executable, "-m", "bench.lists", "--one"]
    answer = subprocess.run(command, input=made, stdout=subprocess.PIPE, check=True, timeout=300)
    return msgspec.json.decode(answer.stdout, type=Measured)


def shown(rows: Sequence[tuple[Sequence[str], Measured]]) -> str:
    """The table."""
    cells = [
        (
            ", ".join(kinds),
            f"{found.section_bytes / 1e6:.1f} MB",
            f"{found.compile_s:.2f} s",
            f"{found.pause_ms:.1f} ms",
            f"{found.before_mb:.0f} → {found.after_mb:.0f} MB",
            f"{found.peak_mb:.0f} MB",
        )
        for kinds, found in rows
    ]
    return table(("100,000 each of", "section, deflated", "to compile", "longest pause of the loop", "memory", "peak"), cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", action="store_true", help="measure the sections on standard input")
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    if options.one:
        sections = msgspec.json.decode(sys.stdin.buffer.read(), type=list[bytes])
        sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(measure(sections))))
        return 0
    text = shown([(kinds, in_a_process(kinds)) for kinds in ROWS])
    print(text)
    if options.write_docs:
        with tempfile.TemporaryDirectory() as directory:
            write_between_markers(PAGE, f"{machine(Path(directory)).sentence}\n\n{text}", MARKERS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
