"""The supervisor, with small stub programs as children."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fixtures.stack import alive
from postern_cli.supervisor import EX_CONFIG, Ended, Pace, Program, Supervisor

PACE = Pace(first_pause_s=0.01, longest_pause_s=0.05, stable_s=60, stop_s=5)
FOREVER = "import time; print('up', flush=True); time.sleep(600)"


class Watched:
    """A supervisor, and what it told."""

    def __init__(self, folder: Path, pace: Pace = PACE) -> None:
        self._folder = folder
        self._changed = asyncio.Condition()
        self.ends: list[Ended] = []
        self.seen: list[dict[str, list[int]]] = []
        self.supervisor = Supervisor(on_change=self._on_change, on_end=self._on_end, pace=pace)

    def program(self, name: str, code: str) -> Program:
        return Program(name, (sys.executable, "-c", code), dict(os.environ), self._folder / f"{name}.log")

    def start(self, name: str, code: str) -> None:
        self.supervisor.start(self.program(name, code))

    def pid(self, name: str) -> int:
        return self.supervisor.pids[name][0]

    def _on_change(self) -> None:
        self.seen.append(self.supervisor.pids)

    def _on_end(self, end: Ended) -> None:
        self.ends.append(end)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.005)

    async def until_said(self, name: str, text: str) -> None:
        log = self._folder / f"{name}.log"
        await self.until(lambda: log.exists() and text in log.read_text())


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.supervisor.kill()
    await watched.supervisor.stop(*watched.supervisor.pids)


async def test_a_child_that_is_killed_is_started_again_under_a_new_pid(watched: Watched) -> None:
    watched.start("a", FOREVER)
    watched.start("b", FOREVER)
    await watched.until(lambda: set(watched.supervisor.pids) == {"a", "b"})
    first, other = watched.pid("a"), watched.pid("b")
    os.kill(first, signal.SIGKILL)
    await watched.until(lambda: watched.supervisor.pids.get("a", [first]) != [first])
    assert watched.pid("b") == other
    assert [(end.program.name, end.code) for end in watched.ends] == [("a", -signal.SIGKILL)]
    # the loss was told, too, before the new process
    assert {"b": [other]} in watched.seen


async def test_a_child_that_ends_again_and_again_is_counted_and_its_last_words_are_kept(watched: Watched) -> None:
    watched.start(
        "a", f"import sys; print('noise'); print('postern: a: POSTERN_X: wrong', file=sys.stderr); sys.exit({EX_CONFIG})"
    )
    await watched.until(lambda: len(watched.ends) >= 3)
    assert [end.in_a_row for end in watched.ends[:3]] == [1, 2, 3]
    assert watched.ends[0].code == EX_CONFIG
    assert watched.ends[0].last_words == "a: POSTERN_X: wrong"


async def test_last_words_are_those_of_this_run_and_fall_back_to_the_last_line(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("postern: an older complaint\n")
    watched.start("a", "raise SystemExit('ValueError: that is it')")
    await watched.until(lambda: bool(watched.ends))
    assert watched.ends[0].last_words == "ValueError: that is it"


async def test_last_words_are_the_last_error_of_a_structured_log(watched: Watched) -> None:
    failed = '{"event": "service.failed", "level": "error", "exception": "Traceback…\\nKeyError: 1"}'
    watched.start("a", f"print({failed!r}); print({json.dumps({'event': 'service.stopped', 'level': 'info'})!r}); exit(70)")
    await watched.until(lambda: bool(watched.ends))
    assert watched.ends[0].last_words == "service.failed: KeyError: 1"


async def test_a_command_that_does_not_exist_is_told(watched: Watched, tmp_path: Path) -> None:
    watched.supervisor.start(Program("a", (str(tmp_path / "nothing"),), {}, tmp_path / "a.log"))
    await watched.until(lambda: bool(watched.ends))
    assert watched.ends[0].code == EX_CONFIG
    assert "cannot start" in watched.ends[0].last_words


async def test_stop_lets_a_child_drain(watched: Watched, tmp_path: Path) -> None:
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print('drained', flush=True), sys.exit(0)))
print('up', flush=True)
time.sleep(600)
"""
    watched.start("a", code)
    await watched.until_said("a", "up")
    await watched.supervisor.stop("a", "unknown")
    assert "drained" in (tmp_path / "a.log").read_text()
    assert watched.ends == []
    assert watched.supervisor.pids == {}


async def test_stop_kills_a_child_that_does_not_end(tmp_path: Path) -> None:
    watched = Watched(tmp_path, Pace(stop_s=0.1))
    watched.start("a", f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}")
    await watched.until_said("a", "up")
    pid = watched.pid("a")
    await watched.supervisor.stop("a")
    assert not alive(pid)


async def test_stop_in_the_pause_before_a_restart_starts_nothing(tmp_path: Path) -> None:
    watched = Watched(tmp_path, Pace(first_pause_s=600, longest_pause_s=600))
    watched.start("a", "pass")
    await watched.until(lambda: bool(watched.ends))
    async with asyncio.timeout(10):
        await watched.supervisor.stop("a")
    assert watched.supervisor.pids == {}


async def test_stop_while_the_child_is_being_started_loses_no_process(watched: Watched) -> None:
    watched.start("a", FOREVER)
    async with asyncio.timeout(20):
        await watched.supervisor.stop("a")
    assert watched.supervisor.pids == {}
    assert all(not alive(pid) for seen in watched.seen for pids in seen.values() for pid in pids)


async def test_what_a_killed_child_leaves_behind_is_killed(watched: Watched, tmp_path: Path) -> None:
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {FOREVER!r}]).pid, flush=True); {FOREVER}"
    watched.start("a", code)
    await watched.until_said("a", "up\nup")
    grandchild = int((tmp_path / "a.log").read_text().split()[0])
    os.kill(watched.pid("a"), signal.SIGKILL)
    await watched.until(lambda: bool(watched.ends))
    await watched.until(lambda: not _running(grandchild))


def _running(pid: int) -> bool:
    """Not so for a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, sys
from pathlib import Path
from postern_cli.supervisor import Program, Supervisor
async def main():
    supervisor = Supervisor()
    supervisor.start(Program("a", (sys.executable, "-c", {FOREVER!r}), dict(os.environ), Path({str(tmp_path)!r}) / "a.log"))
    while "a" not in supervisor.pids:
        await asyncio.sleep(0.01)
    print(supervisor.pids["a"][0], flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        descriptor = os.pidfd_open(child)
        parent.kill()
    try:
        import select

        assert select.select([descriptor], [], [], 20)[0], "the child lives on"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' scheduler")
async def test_children_yield_the_core(watched: Watched) -> None:
    watched.start("a", f"import os; print(os.sched_getscheduler(0), flush=True); {FOREVER}")
    await watched.until_said("a", f"{os.SCHED_BATCH}\n")


async def test_one_name_is_started_once(watched: Watched) -> None:
    watched.start("a", FOREVER)
    with pytest.raises(ValueError, match="started already"):
        watched.start("a", FOREVER)
