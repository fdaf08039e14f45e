"""CPU time and memory of processes and their descendants, from /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def descendants(roots: list[int]) -> list[int]:
    """`roots` and everything below them that lives now."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children[int(fields[1])].append(int(entry.name))
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children[pid]
    return found


def cpu_s(roots: list[int]) -> float:
    """User and system time of the living descendants, and of those of their children that have ended and were waited for."""
    total = 0
    for pid in descendants(roots):
        fields = _stat(pid)
        if fields:
            total += sum(int(field) for field in fields[11:15])
    return total * _TICK_S


def rss_bytes(roots: list[int]) -> int:
    """Resident memory now; pages shared between processes count once for each."""
    total = 0
    for pid in descendants(roots):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the command name; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
