"""The parent of several workers: starts them, starts dead ones again with a growing pause, ends them all on SIGTERM within ten seconds.

It has no broker connection and touches no mail. Each worker is this same program with one worker, its own instance name, state folder and
ready file, and a standard input that ends with the parent, so that no worker outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import structlog

from postern_core.healthcheck import FRESH_S, mark_ready
from postern_core.settings import WorkerSettings
from postern_core.telemetry import configure_logging

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_STEADY_S: Final = 60.0  # a worker that lived this long starts with the first pause again
_END_S: Final = 9.5  # the whole end takes ten at most
_EX_CONFIG: Final = 78

NOTHING_MORE: Final[Mapping[str, str]] = MappingProxyType({})


def command_of(module: str) -> tuple[str, ...]:
    """What starts a worker: this interpreter, and the program that the parent is, too."""
    return (sys.executable, "-m", module)


def run_supervisor(name: str, settings: WorkerSettings, command: Sequence[str], share: Mapping[str, str] = NOTHING_MORE) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code: 0, or 78 when the configuration is one that no worker can run with.

    `share` are settings that each worker gets in place of the parent's."""
    configure_logging(name, settings.instance, settings.log_level, settings.log_format)
    with asyncio.Runner() as runner:
        return runner.run(_main(Supervisor(settings, command, share)))


def stop_with_parent(stop: asyncio.Event) -> None:
    """In a worker: set `stop` when standard input ends. The parent is gone then, and another may be starting workers of its own."""
    loop = asyncio.get_running_loop()

    def on_readable() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, on_readable)


async def _main(supervisor: Supervisor) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await supervisor.run(stop)
    return supervisor.exit_code


class Supervisor:
    """Keeps `settings.workers` processes of `command` alive."""

    def __init__(self, settings: WorkerSettings, command: Sequence[str], share: Mapping[str, str] = NOTHING_MORE) -> None:
        self._settings = settings
        self._share = share
        self._command = tuple(command)
        self._workers: dict[int, Process] = {}
        self.exit_code = 0

    @property
    def pids(self) -> list[int]:
        """Of the workers that live."""
        return [worker.pid for worker in self._workers.values() if worker.returncode is None]

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            for index in range(self._settings.workers):
                tasks.create_task(self._keep_alive(index, stop), name=f"worker-{index}")
            if self._settings.ready_file is not None:
                tasks.create_task(self._report_ready(self._settings.ready_file, stop), name="ready")

    async def _keep_alive(self, index: int, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        pause_s = _FIRST_PAUSE_S
        while not stop.is_set():
            started = loop.time()
            worker = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, env=self.environment(index, os.environ))
            self._workers[index] = worker
            log.info("worker.started", worker=index, pid=worker.pid)
            await _first(worker.wait(), stop.wait())
            if stop.is_set():
                await self._end(index, worker)
                return
            log.error("worker.ended", worker=index, pid=worker.pid, status=worker.returncode)
            if worker.returncode == _EX_CONFIG:
                self.exit_code = _EX_CONFIG
                stop.set()
                return
            if loop.time() - started > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await stop.wait()
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _end(self, index: int, worker: Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            worker.terminate()
        try:
            async with asyncio.timeout(_END_S):
                await worker.wait()
        except TimeoutError:
            log.error("worker.killed", worker=index, pid=worker.pid)
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()

    def environment(self, index: int, base: Mapping[str, str]) -> dict[str, str]:
        """What worker `index` runs with."""
        settings = self._settings
        own = {
            "POSTERN_WORKERS": "1",
            "POSTERN_SUPERVISED": "true",
            "POSTERN_INSTANCE": f"{settings.instance}-{index}",
        }
        if settings.state_dir is not None:
            own["POSTERN_STATE_DIR"] = str(settings.state_dir / f"worker-{index}")
        if settings.ready_file is not None:
            own["POSTERN_READY_FILE"] = str(_ready_file(settings.ready_file, index))
        return {**base, **self._share, **own}

    async def _report_ready(self, path: Path, stop: asyncio.Event) -> None:
        """Ready when every worker is."""
        while not stop.is_set():
            files = [_ready_file(path, index) for index in range(self._settings.workers)]
            mark_ready(path, ready=all(_is_fresh(file) for file in files))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await stop.wait()
        mark_ready(path, ready=False)


def _ready_file(path: Path, index: int) -> Path:
    return path.with_name(f"{path.name}.{index}")


def _is_fresh(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < FRESH_S
    except FileNotFoundError:
        return False


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
