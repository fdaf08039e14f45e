"""Policies with lists of 100,000 values: how long they take to compile, how long the event loop waits meanwhile and at the swap, and the memory.

    python -m bench.lists           # three minutes; --write-docs puts the table into docs/performance.md

Each row is a process of its own, which imports what a worker does, runs uvloop, and gives freed memory back as a worker does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import uvloop

from bench.machine import machine
from bench.report import table, write_between_markers
from bench.rules import phrases
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
from postern_core.process import giving_way
from postern_core.verdict import Action
from postern_screener import app as _app  # noqa: F401  (what a worker has in memory)
from postern_screener.ruleset import Ruleset, compile_policy

# as `bench.run` has it, whose libraries take more memory than a worker
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
MARKERS = ("<!-- lists:begin -->", "<!-- lists:end -->")
VALUES = 100_000
IN_RULES, ONE_MORE = "in rules", "one more"
_IN_A_RULE = 100
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
ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("phrases", ("phrases",)),
    ("phrases, with one more in each revision", (ONE_MORE,)),
    ("phrases, not in a list but in 1,000 rules", (IN_RULES,)),
    ("senders", ("senders",)),
    ("extensions", ("extensions",)),
    ("phrases, senders, extensions", ("phrases", "senders", "extensions")),
)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One process."""

    section_bytes: int
    compile_s: float  # the slowest of three
    pause_ms: float  # the longest of the event loop, compiling or swapping
    own_pause_ms: float  # … without what its thread waited for a core that others had
    before_mb: float
    after_mb: float
    peak_mb: float


def section(kinds: Sequence[str], seed: int) -> bytes:
    """A policy with a list of each kind, and a rule that names it."""
    words = list(phrases(random.Random(f"lists/{seed}"), VALUES))
    if kinds == (IN_RULES,):
        groups = [tuple(words[first : first + _IN_A_RULE]) for first in range(0, VALUES, _IN_A_RULE)]
        return encode_section(ScreeningPolicy(revision=seed, rules=_rules(KeywordCondition(phrases=group) for group in groups)))
    if kinds == (ONE_MORE,):
        kinds, words = ("phrases",), [*phrases(random.Random("lists/1"), VALUES - seed), *words[:seed]]
    lists = [NamedList.of(name, KINDS[name][0], (KINDS[name][2](n, each) for n, each in enumerate(words))) for name in kinds]
    return encode_section(ScreeningPolicy(revision=seed, rules=_rules(KINDS[name][1] for name in kinds), lists=tuple(lists)))


def _rules(conditions: Iterable[Condition]) -> tuple[Rule, ...]:
    return tuple(Rule(id=f"{n}", name=f"{n}", condition=each, action=Action.DELETE) for n, each in enumerate(conditions))


async def measure(sections: Sequence[Path]) -> Measured:
    """In this process. The values were made in another one."""
    gc.freeze()  # as a worker does some seconds after its start
    stop = asyncio.Event()
    heap = asyncio.create_task(keep_large_blocks(stop))
    longest = of_own_making = 0.0

    async def beat() -> None:
        nonlocal longest, of_own_making
        while not stop.is_set():
            begun, queued_s = time.perf_counter(), _queued_s()
            await asyncio.sleep(_BEAT_S)
            pause_s = time.perf_counter() - begun - _BEAT_S
            longest = max(longest, pause_s)
            of_own_making = max(of_own_making, pause_s - (_queued_s() - queued_s))

    def compiled(data: bytes) -> Ruleset:
        with giving_way():  # as `PolicyWatch` does
            return compile_policy(decode_section(data, ScreeningPolicy))

    beating = asyncio.create_task(beat())
    before, took = _memory_mb("VmRSS"), []
    in_force: Ruleset | None = None
    for path in sections:
        data = path.read_bytes()
        begun = time.perf_counter()
        in_force = await asyncio.to_thread(compiled, data)  # the swap: the one before it is freed here
        took.append(time.perf_counter() - begun)
        await asyncio.sleep(0.1)
    pauses_ms = longest * 1000, of_own_making * 1000
    await asyncio.sleep(_SETTLED_S)
    assert in_force is not None
    stop.set()
    await asyncio.gather(heap, beating)
    return Measured(
        section_bytes=sections[0].stat().st_size,
        compile_s=max(took),
        pause_ms=pauses_ms[0],
        own_pause_ms=pauses_ms[1],
        before_mb=before,
        after_mb=_memory_mb("VmRSS"),
        peak_mb=_memory_mb("VmHWM"),
    )


def _queued_s() -> float:
    """How long the loop's thread, which calls it, has waited for a core."""
    return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:"))


def in_a_process(kinds: Sequence[str]) -> Measured:
    """As `measure`."""
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / f"{seed}" for seed in (1, 2, 3)]
        for seed, path in enumerate(paths, 1):
            path.write_bytes(section(kinds, seed))
        command = [sys.executable, "-m", "bench.lists", "--measure", *map(str, paths)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300)
    return msgspec.json.decode(answer.stdout, type=Measured)


def shown(rows: Sequence[tuple[str, Measured]]) -> str:
    """The table."""
    cells = [
        (
            title,
            f"{found.section_bytes / 1e6:.1f} MB",
            f"{found.compile_s:.2f} s",
            f"{found.pause_ms:.1f} ms",
            f"{found.own_pause_ms:.1f} ms",
            f"{found.before_mb:.0f} → {found.after_mb:.0f} MB",
            f"{found.peak_mb:.0f} MB",
        )
        for title, found in rows
    ]
    return table(
        (
            "100,000 each of",
            "section, deflated",
            "to compile",
            "longest pause of the loop",
            "without waits for a core",
            "memory",
            "peak",
        ),
        cells,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", nargs="+", type=Path, metavar="SECTION", help="in this process")
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    if options.measure:
        sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(measure(options.measure))))
        return 0
    text = shown([(title, in_a_process(kinds)) for title, kinds in ROWS])
    print(text)
    if options.write_docs:
        with tempfile.TemporaryDirectory() as directory:
            write_between_markers(PAGE, f"{machine(Path(directory), 'no network').sentence}\n\n{text}", MARKERS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
