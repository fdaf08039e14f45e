"""CPU time and memory of processes and their descendants, from /proc, and how a process that we started ends."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STOP_S = 20
_START_S = 60


def children_of_all() -> dict[int, list[int]]:
    """Every process that lives now, below its parent. To look at several services at once, since this goes through all of the machine's."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children[int(fields[1])].append(int(entry.name))
    return children


def descendants(roots: list[int], children: Mapping[int, list[int]] | None = None) -> list[int]:
    """`roots` and everything below them that lives now, or lived when `children` were looked at."""
    if children is None:
        children = children_of_all()
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_s(roots: list[int]) -> float:
    """User and system time of the living descendants, and of those of their children that have ended and were waited for."""
    total = 0
    for pid in descendants(roots):
        fields = _stat(pid)
        if fields:
            total += sum(int(field) for field in fields[11:15])
    return total * _TICK_S


def memory_bytes(roots: list[int], children: Mapping[int, list[int]] | None = None) -> int:
    """Memory now (`children` as for `descendants`), a page that several processes share counted once between them (PSS); where that may not be read, resident memory."""
    total = 0
    for pid in descendants(roots, children):
        try:
            total += _pss(pid)
        except PermissionError:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def busy_s() -> float:
    """CPU time that this machine has spent on anything since it started, all cores together."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def keep_to_two_cores() -> None:
    """This process and all that it starts share the first two cores that it may use, so that ratios of a larger machine can be compared."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


@contextmanager
def running(command: list[str], output: Path, *, cwd: Path, environment: dict[str, str] | None = None) -> Iterator[int]:
    """The command as a process of ours, its output in a file; gives its pid. Ends with SIGTERM, or SIGKILL when that does not help."""
    with output.open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, env=environment)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], pid: int, what: str, log: Path) -> None:
    """Return when `condition` holds. RuntimeError with the end of the log when process `pid`, our child, ends before or it takes too long."""
    deadline = time.monotonic() + _START_S
    while not condition():
        # an ended child is a zombie until it is waited for
        if time.monotonic() > deadline or (_stat(pid) or ["Z"])[0] == "Z":
            raise RuntimeError(f"waited in vain for {what}: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the command name; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
