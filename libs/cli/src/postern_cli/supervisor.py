"""Keeps child processes running: one that ends is started again, later each time it ends soon; all of them end with us.

Each child has a session of its own, so that Ctrl-C at the terminal reaches us alone and we stop the children in order; what a child leaves
behind in its session is killed before it is started again. On Linux the kernel kills the children should we die ourselves (prctl(2),
PR_SET_PDEATHSIG). Known gap: elsewhere they outlive a supervisor that was killed with SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from postern_core.errors import ConfigurationError
from postern_core.process import yield_the_core

log: structlog.stdlib.BoundLogger = structlog.get_logger()

EX_CONFIG: Final = 78
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `environment` is all that the child sees; its output is appended to `log_file`."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_file: Path


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: the first and the longest pause before a child is started again, how long one must run to count as well again, and how
    long one may take to stop before it is killed."""

    first_pause_s: float = 0.1
    longest_pause_s: float = 10.0
    stable_s: float = 20.0
    stop_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Ended:
    """One end of a child that nobody asked for."""

    program: Program
    code: int  # exit code, or minus the signal
    in_a_row: int  # how often it ended so far without having run well in between
    last_words: str  # what it wrote last, for an administrator

    @property
    def told(self) -> str:
        """Which program it was, why it ended, and where to read more."""
        name, said = self.program.name, self.last_words or f"ended with {self.code}"
        return f"{said if said.startswith(f'{name}:') else f'{name}: {said}'} (log: {self.program.log_file})"


class Supervisor:
    """`start` programs, `stop` them by name in the order you like.

    `on_change` hears of every new and every lost process, `on_end` of every unexpected end, in the order in which it happens.
    """

    def __init__(
        self,
        *,
        on_change: Callable[[], None] = lambda: None,
        on_end: Callable[[Ended], None] = lambda _: None,
        pace: Pace | None = None,
    ) -> None:
        self._on_change = on_change
        self._on_end = on_end
        self._pace = pace or Pace()
        self._children: dict[str, _Child] = {}

    @property
    def pids(self) -> dict[str, list[int]]:
        """Name → pid of what runs now."""
        return {name: [child.process.pid] for name, child in self._children.items() if child.process is not None}

    def start(self, program: Program) -> None:
        """Run `program`, and again whenever it ends, until `stop`."""
        if program.name in self._children:
            raise ValueError(f"{program.name} was started already")
        child = _Child(program, self._pace, self._on_change, self._on_end)
        self._children[program.name] = child
        child.keeping = asyncio.create_task(child.keep(), name=f"keep {program.name}")

    async def stop(self, *names: str) -> None:
        """End these programs together: SIGTERM, and SIGKILL for what is left after a while. Unknown names are passed over."""
        await asyncio.gather(*(self._children[name].stop() for name in names if name in self._children))
        for name in names:
            self._children.pop(name, None)

    def kill(self) -> None:
        """SIGKILL for everything that runs: whoever waits in `stop` returns soon."""
        for child in self._children.values():
            child.stopping.set()
            child.signal(signal.SIGKILL)


class _Child:
    """One program and its process, if it has one now."""

    def __init__(self, program: Program, pace: Pace, on_change: Callable[[], None], on_end: Callable[[Ended], None]) -> None:
        self._program = program
        self._pace = pace
        self._on_change = on_change
        self._on_end = on_end
        self.process: asyncio.subprocess.Process | None = None
        self.stopping = asyncio.Event()
        self.keeping: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        """Until `stopping` is set. It is never cancelled, so that no process can get lost between fork and here."""
        loop = asyncio.get_running_loop()
        in_a_row = 0
        while not self.stopping.is_set():
            started, written = loop.time(), _size(self._program.log_file)
            code = await self._run_once()
            if self.stopping.is_set():
                return
            in_a_row = 1 if loop.time() - started > self._pace.stable_s else in_a_row + 1
            words = _last_words(self._program.log_file, written)
            pause_s = min(self._pace.first_pause_s * 2 ** (min(in_a_row, 16) - 1), self._pace.longest_pause_s)
            log.warning("process.ended", name=self._program.name, code=code, again_in_s=pause_s, said=words)
            self._on_end(Ended(self._program, code, in_a_row, words))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self.stopping.wait()

    async def stop(self) -> None:
        self.stopping.set()
        if self.keeping is None:
            return
        self.signal(signal.SIGTERM)
        _, late = await asyncio.wait({self.keeping}, timeout=self._pace.stop_s)
        if late:
            log.warning("process.killed", name=self._program.name, after_s=self._pace.stop_s)
            self.signal(signal.SIGKILL)
        await self.keeping

    def signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def _run_once(self) -> int:
        try:
            process = await _spawned(self._program)
        except OSError:
            return EX_CONFIG
        self.process = process
        self._on_change()
        if self.stopping.is_set():
            self.signal(signal.SIGTERM)
        code = await process.wait()
        # a group keeps its number as long as it has members, so this reaches nobody else
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self.process = None
        self._on_change()
        return code


async def run_to_end(program: Program) -> None:
    """Run once what ends by itself. ConfigurationError when it fails; it is killed when nobody waits for it any more."""
    written = _size(program.log_file)
    code = EX_CONFIG
    with contextlib.suppress(OSError):
        process = await _spawned(program)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
    if code:
        raise ConfigurationError(Ended(program, code, 1, _last_words(program.log_file, written)).told)


async def _spawned(program: Program) -> asyncio.subprocess.Process:
    """OSError, which stands in its log, when it cannot be started."""
    with program.log_file.open("ab") as output:
        try:
            return await asyncio.create_subprocess_exec(
                *program.command,
                env=dict(program.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()) if _LIBC is not None else None,
            )
        except OSError as error:
            output.write(f"postern: {program.name}: cannot start {program.command[0]}: {error.strerror}\n".encode())
            raise


def _die_with(parent: int) -> Callable[[], None]:
    def in_child() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # type: ignore[union-attr]
        if os.getppid() != parent:  # it died before we asked
            os._exit(EX_CONFIG)
        yield_the_core()  # the broker too, which is not ours

    return in_child


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _last_words(path: Path, start: int) -> str:
    """What was written from `start` on and is meant for people (`postern: …`), else the last error, else the last line."""
    with path.open("rb") as file:
        file.seek(max(start, _size(path) - 64 * 1024))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    meant = [line.removeprefix("postern: ") for line in lines if line.startswith("postern: ")]
    if meant:
        return "; ".join(meant[-3:])
    return next(filter(None, map(_error_in, reversed(lines))), "".join(lines[-1:]))[:500]


def _error_in(line: str) -> str:
    """Event and exception of a structured log line of level error, "" for any other line."""
    try:
        event = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(event, dict) or event.get("level") not in ("error", "critical"):
        return ""
    what = str(event.get("exception") or event.get("reason") or "").strip()
    return f"{event.get('event', '')}: {what.splitlines()[-1] if what else ''}"
