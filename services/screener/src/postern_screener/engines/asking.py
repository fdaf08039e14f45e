"""Asks the daemons that a verdict needs, side by side, each within its own time, and knows how each one is.

Nothing here raises for an engine: what it cannot say is a `Failure`, and what follows from that is the policy's (`screening.py`). A daemon is
also called by name every few seconds, so that its health is known without mail, and so that it is asked again as soon as it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

from postern_core.control import EngineState, EngineStatus
from postern_core.envelope import Envelope
from postern_core.policy import ClamdEngine, Engines, RspamdEngine
from postern_core.verdict import Engine, Verdict
from postern_screener.engines.answers import NOBODY_ASKED, Answers, EngineError, Failure, Spam, Viruses
from postern_screener.engines.breaker import Breaker, State
from postern_screener.engines.clamd import Clamd
from postern_screener.engines.rspamd import Rspamd

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_ASKING_S: Final = 60.0  # whatever the policy says: an entry may be kept only so long
PING_EVERY_S: Final = 5.0
_PING_TIMEOUT_S: Final = 3.0


@dataclass(slots=True)
class _Health:
    """Of one engine, since the worker started."""

    error: str = ""
    known: bool = False
    asked: int = 0
    failed: int = 0
    seconds: float = 0.0
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def state(self) -> EngineState:
        if self.breaker.state is not State.CLOSED:
            return EngineState.OPEN
        if not self.known:
            return EngineState.UNKNOWN
        return EngineState.FAILING if self.error else EngineState.OK


@dataclass(slots=True, eq=False)
class _Daemon:
    """A daemon as one policy describes it."""

    settings: ClamdEngine | RspamdEngine
    client: Clamd | Rspamd


class EngineDesk:
    """One for each worker. `follow` gives it the engines of the policy in force."""

    def __init__(self, *, ping_every_s: float = PING_EVERY_S) -> None:
        self._ping_every_s = ping_every_s
        self._engines = Engines()
        self._daemons: dict[Engine, _Daemon] = {}
        self._health: dict[Engine, _Health] = {}
        self._poked = asyncio.Event()

    def follow(self, engines: Engines) -> None:
        """Take up a new policy. What is asked already goes on with the old settings."""
        self._engines = engines
        for engine in (Engine.CLAMD, Engine.RSPAMD):
            known, settings = self._daemons.get(engine), engines.clamd if engine is Engine.CLAMD else engines.rspamd
            if known is not None and known.settings != settings:
                self._daemons.pop(engine).client.close()
                del self._health[engine]
                known = None
            if known is None and settings.enabled:
                self._daemons[engine] = _Daemon(settings, _client(settings))
        self._health = {engine: self._health.get(engine) or _Health() for engine in Engine if engines.of(engine).enabled}
        self._poked.set()

    async def ask(self, engines: Iterable[Engine], envelope: Envelope, body: bytes, *, is_trial: bool = False) -> Answers:
        """What they say, each an answer or a Failure; those that are no daemons are left out. What fails for a trial is not held against an engine:
        somebody who tries messages must not have live mail do without it."""
        wanted = [engine for engine in dict.fromkeys(engines) if engine in (Engine.CLAMD, Engine.RSPAMD)]
        if not wanted:
            return NOBODY_ASKED
        found = await asyncio.gather(*(self._ask(engine, envelope, body, is_trial=is_trial) for engine in wanted))
        answers = dict(zip(wanted, found, strict=True))
        clamd, rspamd = answers.get(Engine.CLAMD), answers.get(Engine.RSPAMD)
        assert not isinstance(clamd, Spam) and not isinstance(rspamd, Viruses)  # noqa: PT018  (each answers in its own words)
        return Answers(clamd=clamd, rspamd=rspamd)

    def note(self, verdict: Verdict) -> None:
        """What YARA answered is known from the verdict."""
        for answer in verdict.answers:
            if answer.engine is Engine.YARA and (health := self._health.get(Engine.YARA)) is not None:
                health.known, health.asked = True, health.asked + 1
                health.failed += answer.result == "failed"
                health.error = answer.detail if answer.result == "failed" else ""
                health.seconds += answer.ms / 1000

    def statuses(self) -> tuple[EngineStatus, ...]:
        """Of the engines that are on."""
        return tuple(
            EngineStatus(
                engine=engine,
                state=health.state,
                on_failure=self._engines.of(engine).on_failure,
                error=health.error[:200],
                asked=health.asked,
                failed=health.failed,
                seconds=round(health.seconds, 3),
            )
            for engine, health in self._health.items()
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Call the daemons by name every few seconds, until `stop`."""
        while not stop.is_set():
            self._poked.clear()
            await asyncio.gather(*(self._ping(engine, daemon) for engine, daemon in self._daemons.items()))
            waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._poked.wait())]
            try:
                await asyncio.wait(waits, timeout=self._ping_every_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        for daemon in self._daemons.values():
            daemon.client.close()

    async def _ask(self, engine: Engine, envelope: Envelope, body: bytes, *, is_trial: bool) -> Viruses | Spam | Failure:
        daemon, health = self._daemons.get(engine), self._health.get(engine)
        if daemon is None or health is None:
            return Failure("it was switched off meanwhile")
        if not health.breaker.allows(time.monotonic()):
            return Failure(f"not asked, since it failed again and again; at last: {health.error}")
        started = time.monotonic()
        settled = False
        limit_s = min(daemon.settings.timeout_s, MAX_ASKING_S)
        try:
            async with asyncio.timeout(limit_s):
                answer = await daemon.client.ask(envelope, body)
            self._succeeded(engine, health)
            settled = True
        except (EngineError, TimeoutError, OSError) as error:
            reason, lasting = f"no answer after {limit_s:g} s", False
            if isinstance(error, EngineError):
                reason, lasting = error.reason, error.lasting
            elif not isinstance(error, TimeoutError):
                reason = str(error)
            # what it cannot do for this message says nothing about the next one
            if not lasting and not is_trial:
                self._failed(engine, health, reason)
                settled = True
            health.failed += 1
            return Failure(reason, lasting, (time.monotonic() - started) * 1000)
        finally:
            if not settled:
                health.breaker.forgotten()
            health.asked += 1
            health.seconds += time.monotonic() - started
        ms = (time.monotonic() - started) * 1000
        return type(answer)(**{name: getattr(answer, name) for name in answer.__struct_fields__} | {"ms": ms})

    async def _ping(self, engine: Engine, daemon: _Daemon) -> None:
        health = self._health.get(engine)
        if health is None:
            return
        try:
            async with asyncio.timeout(_PING_TIMEOUT_S):
                await daemon.client.ping()
        except (EngineError, TimeoutError, OSError) as error:
            if self._daemons.get(engine) is daemon and health.breaker.state is State.CLOSED:
                self._failed(engine, health, getattr(error, "reason", "") or f"no answer to its name after {_PING_TIMEOUT_S:g} s")
            return
        if health.breaker.state is State.CLOSED:
            with contextlib.suppress(KeyError):
                self._succeeded(engine, self._health[engine])
        else:
            health.breaker.sign_of_life()

    def _succeeded(self, engine: Engine, health: _Health) -> None:
        health.breaker.succeeded()
        if health.error:
            log.info("engine.recovered", engine=engine.value)
        health.error, health.known = "", True

    def _failed(self, engine: Engine, health: _Health, reason: str) -> None:
        was = health.breaker.state
        health.breaker.failed(time.monotonic())
        if not health.error or (was is State.CLOSED and health.breaker.state is State.OPEN):
            log.error("engine.failed", engine=engine.value, reason=reason, left_alone=health.breaker.state is State.OPEN)
        health.error, health.known = reason, True


def _client(settings: ClamdEngine | RspamdEngine) -> Clamd | Rspamd:
    return Clamd(settings) if isinstance(settings, ClamdEngine) else Rspamd(settings)
