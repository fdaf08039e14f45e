"""Inspects suspects in a child process, one message at a time, so that a crash, a hang or a memory bomb convicts the message that
caused it and no other. The child is started when it is first needed, kept for the next suspect, and killed when it overruns or idles.

Nothing but the process protocol stands here: who is a suspect, and what follows from a conviction, is `worker.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from postern_core.envelope import Envelope, frame
from postern_core.errors import TransientError
from postern_core.policy import ScreeningPolicy, encode_section
from postern_screener.engines.answers import NOBODY_ASKED, Answers
from postern_screener.ruleset import Ruleset
from postern_screener.sandbox_wire import LENGTH, SECONDS, Kind, exchange, pack
from postern_screener.screening import Screened

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_START_S: Final = 20.0  # start, imports and compilation of an ordinary policy
_COMPILE_FACTOR: Final = 3.0  # … and this many times what the parent took to compile it: 100,000 phrases take ten seconds
_GRACE_S: Final = 3.0
_IDLE_S: Final = 60.0


class ConvictedError(Exception):
    """The inspection of this message failed in a process of its own; the text says how."""


def default_command(memory_limit_mib: int) -> tuple[str, ...]:
    """How the child is started."""
    return (sys.executable, "-m", "postern_screener.sandbox_child", str(memory_limit_mib))


class Sandbox:
    """One child. `command` starts it; tests give one of their own."""

    def __init__(self, command: Sequence[str], *, idle_s: float = _IDLE_S) -> None:
        self._command = tuple(command)
        self._idle_s = idle_s
        self._one_at_a_time = asyncio.Lock()
        self._child: Process | None = None
        self._policy: ScreeningPolicy | None = None  # that the child has
        self._used_at = 0.0

    async def inspect(
        self,
        envelope: Envelope,
        body: bytes,
        ruleset: Ruleset,
        timeout_s: float,
        wait_s: float,
        answers: Answers = NOBODY_ASKED,
    ) -> Screened:
        """The outcome of the inspection. ConvictedError when the message broke it; TransientError when that cannot be told, because the
        child did not start or is taken by others for longer than `wait_s` seconds."""
        try:
            async with asyncio.timeout(wait_s):
                await self._one_at_a_time.acquire()
        except TimeoutError as error:
            raise _unavailable("the sandbox is busy") from error
        finished = False
        try:
            child = await self._ready_child(ruleset)
            screened = await self._ask(child, envelope, body, answers, timeout_s)
            finished = True
            return screened
        finally:
            if not finished:
                await self._kill()  # it may be in the middle of something
            self._used_at = asyncio.get_running_loop().time()
            self._one_at_a_time.release()

    async def run(self, stop: asyncio.Event) -> None:
        """End the child when it has idled, and at `stop`."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._idle_s / 2):
                    await stop.wait()
            idle_s = asyncio.get_running_loop().time() - self._used_at
            if stop.is_set() or (idle_s > self._idle_s and not self._one_at_a_time.locked()):
                async with self._one_at_a_time:
                    await self._kill()

    async def _ready_child(self, ruleset: Ruleset) -> Process:
        policy = ruleset.policy
        if self._child is not None and self._child.returncode is not None:
            await self._kill()
        if self._child is not None and self._policy is policy:
            return self._child
        try:
            async with asyncio.timeout(_START_S + _COMPILE_FACTOR * ruleset.compiled_in_s):
                if self._child is None:
                    self._child = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE)
                    log.info("sandbox.started", pid=self._child.pid)
                kind, answer = await exchange(self._child, pack(Kind.POLICY, await asyncio.to_thread(encode_section, policy)))
        except (TimeoutError, OSError, EOFError) as error:
            raise _unavailable(f"the sandbox did not start: {type(error).__name__}: {error}") from error
        if kind is not Kind.READY:
            raise _unavailable(f"the sandbox refused the policy: {answer.decode(errors='replace')}")
        self._policy = policy
        return self._child

    async def _ask(self, child: Process, envelope: Envelope, body: bytes, answers: Answers, timeout_s: float) -> Screened:
        said = msgspec.json.encode(answers)
        request = pack(Kind.MESSAGE, SECONDS.pack(timeout_s), LENGTH.pack(len(said)), said, frame(envelope, body))
        started = asyncio.get_running_loop().time()
        asking = asyncio.create_task(exchange(child, request), name="sandbox-exchange")
        try:
            await asyncio.wait({asking}, timeout=timeout_s)
            # the child ends itself a second after its time. Waiting for that, not for our own clock alone, and at least one more
            # round of the loop: that we were too busy to read the answer is no fault of the message's
            await asyncio.wait({asking}, timeout=_GRACE_S)
            if not asking.done():
                raise ConvictedError(f"not done after {timeout_s:g} s")
            kind, answer = asking.result()
        except (OSError, EOFError) as error:
            if asyncio.get_running_loop().time() - started > timeout_s:
                raise ConvictedError(f"not done after {timeout_s:g} s") from error
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await child.wait()
            raise ConvictedError(f"the process ended with status {child.returncode}") from error
        finally:
            asking.cancel()
        if kind is not Kind.SCREENED:
            raise ConvictedError(answer.decode(errors="replace"))
        return msgspec.json.decode(answer, type=Screened)

    async def _kill(self) -> None:
        child, self._child, self._policy = self._child, None, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        if child.stdin is not None:
            child.stdin.close()


def _unavailable(reason: str) -> TransientError:
    return TransientError(451, "4.3.0", "mail system temporarily unavailable, try again later", reason=reason)
