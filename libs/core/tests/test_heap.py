"""Memory of large messages: it is used again while they come, and the system has it back when they are gone."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio
from pathlib import Path
from postern_core import heap

heap._LOOK_EVERY_S = 0.05
MIB = 1024 * 1024

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // MIB

def faults():
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[7])

async def main():
    stop = asyncio.Event()
    keeping = asyncio.create_task(heap.keep_large_blocks(stop))
    await asyncio.sleep(0)
    before, large, small = resident(), [], []
    for k in range(20):
        large.append(bytes(range(256)) * (9 * MIB // 256))
        small.append(bytes(5000 + k))  # above it in the heap, and there to stay
    assert resident() > before + 150
    large.clear()
    used = faults()
    for k in range(20):
        bytes(range(256)) * (9 * MIB // 256)
    print("faults", faults() - used)
    await asyncio.sleep(0.5)
    print("left", resident() - before)
    stop.set()
    await keeping

asyncio.run(main())
"""


def test_large_blocks_are_used_again_and_given_back_when_they_have_been_free_for_a_while() -> None:
    """Was: each block came fresh from the system, 2,304 pages of it to be mapped one by one."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    told = dict(line.split() for line in run.stdout.splitlines())
    assert int(told["faults"]) < 2304
    assert int(told["left"]) < 40


def test_what_is_free_goes_back_at_once_when_asked() -> None:
    """Also where nothing looks after it, and something small lies above it."""
    code = f"""
{PROGRAM.partition("async def main")[0]}
import ctypes
ctypes.CDLL(None).mallopt(-3, 32 * MIB)  # in the heap, as keep_large_blocks has it
before, large, small = resident(), [], []
for k in range(20):
    large.append(bytes(range(256)) * (5 * MIB // 256))
    small.append(bytes(5000 + k))
large.clear()
free = resident() - before
heap.give_back()
print(free, resident() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    free, left = map(int, run.stdout.split())
    assert free > 80
    assert left < 20
