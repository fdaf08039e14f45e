"""Answers the api's question what would come of a message under some rules (`control.screener.try`, postern_core.trial).

Nothing of it happens in this process, which live mail goes through: each trial runs in a child at the lowest priority, bounded in time and memory,
one after the other. A message that breaks the child is told of as such; whoever comes while too many wait is sent away.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from postern_core.bus import Bus
from postern_core.control import ControlError
from postern_core.envelope import Envelope, frame
from postern_core.trial import TRIAL_TIMEOUT_S, TRIALS_ARE_BUSY, ScreenerVerb, TrialAnswer, Tried, unframe_trial
from postern_core.verdict import Engine
from postern_screener.engines.answers import NOBODY_ASKED, Answers
from postern_screener.sandbox_wire import LENGTH, SECONDS, Kind, exchange, pack
from postern_screener.trial_child import WITH_PLACES, WITHOUT_PLACES

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SUBJECT: Final = "control.screener.*"
_QUEUE_GROUP: Final = "screener"
_VERB: Final = ScreenerVerb.TRY.value
_MOST_WAITING: Final = 2  # each with up to 8 MiB of mail
_ALL_S: Final = TRIAL_TIMEOUT_S - 10  # for one request, from its arrival
_EACH_S: Final = 20.0  # for one message, at a priority at which it may have to wait for everybody else
_GRACE_S: Final = 2.0
_IDLE_S: Final = 120.0
_NO_TIME: Final = "there was no time for it"

Ask = Callable[[Iterable[Engine], Envelope, bytes], Awaitable[Answers]]


class RefusedError(Exception):
    """It cannot be tried; the text says why."""


def default_command(memory_limit_mib: int) -> tuple[str, ...]:
    """How the child is started."""
    return (sys.executable, "-m", "postern_screener.trial_child", str(memory_limit_mib))


class Trials:
    """See the module. `command` starts the child, `ask` asks the engines of the policy in force; tests give their own."""

    def __init__(self, bus: Bus, command: Sequence[str], ask: Ask, *, each_s: float = _EACH_S, idle_s: float = _IDLE_S) -> None:
        self._bus = bus
        self._command = tuple(command)
        self._ask = ask
        self._each_s = each_s
        self._idle_s = idle_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._child: Process | None = None
        self._policy = b""  # the section that the child judges by
        self._used_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until `stop`."""
        subscription = await self._bus.client.subscribe(_SUBJECT, queue=_QUEUE_GROUP, cb=self._receive)
        try:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._idle_s / 2):
                        await stop.wait()
                idle_s = asyncio.get_running_loop().time() - self._used_at
                if idle_s > self._idle_s and not self._one_at_a_time.locked():
                    await self._kill()
        finally:
            if self._bus.connected:
                await subscription.unsubscribe()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._kill()

    async def _receive(self, msg: Msg) -> None:
        task = asyncio.create_task(self._answer(msg), name=msg.subject)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, msg: Msg) -> None:
        answer: msgspec.Struct
        try:
            self._refuse_some(msg.subject)
            async with asyncio.timeout(_ALL_S) as deadline, self._one_at_a_time:
                answer = await self._try(msg.data, deadline)
        except asyncio.CancelledError:  # this worker ends; another one may do it
            await _respond(msg, ControlError(message=TRIALS_ARE_BUSY))
            raise
        except RefusedError as error:
            answer = ControlError(message=str(error))
        except TimeoutError:
            answer = ControlError(
                message="there was no time for this trial: the screener is busy, or the rules take too long to compile"
            )
        except Exception:  # the one handler of a request: whoever asked gets an answer, the log the rest
            log.exception("trial.failed")
            answer = ControlError(message="internal error, see the screener's log")
        await _respond(msg, answer)

    def _refuse_some(self, subject: str) -> None:
        if subject.rpartition(".")[2] != _VERB:
            raise RefusedError("the screener knows no such request")
        if len(self._tasks) > 1 + _MOST_WAITING:
            raise RefusedError(TRIALS_ARE_BUSY)

    async def _try(self, payload: bytes, deadline: asyncio.Timeout) -> TrialAnswer:
        try:
            request, policy, messages = unframe_trial(payload)
        except ValueError as error:
            raise RefusedError(f"the request cannot be read: {error}") from error
        compile_ms = await self._ready_child(policy)
        tried = []
        for envelope, body in messages:
            if self._child is None:  # the message before broke it
                await self._ready_child(policy)
            places = WITH_PLACES if request.places else WITHOUT_PLACES
            found = await self._try_one(envelope, body, NOBODY_ASKED, places, deadline)
            if found.asks and self._child is not None:
                found = await self._try_with_engines(found.asks, envelope, body, places, deadline)
            tried.append(found)
        self._used_at = asyncio.get_running_loop().time()
        return TrialAnswer(tried=tuple(tried), compile_ms=compile_ms)

    async def _try_with_engines(
        self, asks: Iterable[Engine], envelope: Envelope, body: memoryview, places: bytes, deadline: asyncio.Timeout
    ) -> Tried:
        left_s = _left_s(deadline)
        if left_s < _GRACE_S:
            return Tried(failure=_NO_TIME)
        try:
            async with asyncio.timeout(left_s):
                answers = await self._ask(asks, envelope, bytes(body))
        except TimeoutError:
            return Tried(failure=f"{', '.join(asks)} had not answered after {left_s:.0f} s")
        return await self._try_one(envelope, body, answers, places, deadline)

    async def _ready_child(self, policy: bytes) -> float:
        """A child that judges by `policy`; returns the milliseconds that compiling it took, 0 when that was done before."""
        if self._child is not None and (self._child.returncode is not None or not self._policy):
            await self._kill()
        if self._child is None:
            self._child = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE)
            log.info("trial.child_started", pid=self._child.pid)
        elif self._policy == policy:
            return 0.0
        self._policy = b""  # until it has answered
        try:
            kind, answer = await exchange(self._child, pack(Kind.POLICY, policy))
        except (OSError, EOFError) as error:
            await self._kill()
            raise RefusedError("the rules cannot be compiled in the memory that there is for it") from error
        except BaseException:
            await self._kill()
            raise
        if kind is not Kind.READY:
            await self._kill()
            raise RefusedError(f"the rules do not compile: {answer.decode(errors='replace')}")
        self._policy = policy
        return round(float(SECONDS.unpack(answer)[0]), 1)

    async def _try_one(
        self, envelope: Envelope, body: memoryview, answers: Answers, places: bytes, deadline: asyncio.Timeout
    ) -> Tried:
        assert self._child is not None
        left_s = _left_s(deadline)
        if left_s < _GRACE_S:
            return Tried(failure=_NO_TIME)
        limit_s = min(self._each_s, left_s)
        said = msgspec.json.encode(answers)
        request = pack(Kind.MESSAGE, SECONDS.pack(limit_s), places, LENGTH.pack(len(said)), said, frame(envelope, body))
        try:
            async with asyncio.timeout(limit_s + _GRACE_S):
                _, answer = await exchange(self._child, request)
            return msgspec.json.decode(answer, type=Tried)
        except TimeoutError:
            failure = f"not done after {limit_s:g} s"
        except (OSError, EOFError):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self._child.wait()
            failure = f"the process ended with status {self._child.returncode}"
        except BaseException:
            await self._kill()  # it is in the middle of something
            raise
        await self._kill()
        return Tried(failure=failure)

    async def _kill(self) -> None:
        child, self._child, self._policy = self._child, None, b""
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        if child.stdin is not None:
            child.stdin.close()


async def _respond(msg: Msg, answer: msgspec.Struct) -> None:
    try:
        await msg.respond(msgspec.json.encode(answer))
    except (nats.errors.Error, OSError) as error:
        log.warning("trial.unanswered", reason=f"{type(error).__name__}: {error}")


def _left_s(deadline: asyncio.Timeout) -> float:
    """For one step of a request, so that there is time to answer behind it."""
    return (deadline.when() or 0) - asyncio.get_running_loop().time() - _GRACE_S
