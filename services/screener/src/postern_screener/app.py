"""One worker's object graph and tasks: nothing is pulled before there is a policy, and at the end everything in flight is finished first."""

from __future__ import annotations

import asyncio
import functools
import resource
from collections.abc import Sequence
from typing import Final

from postern_core.broker.names import SCREENER_CONSUMER
from postern_core.bus import BodyStore, Bus, Consumer, EventSink, PolicyWatch, StatusReporter
from postern_core.bus.topology import INTAKE
from postern_core.control import TROUBLED
from postern_core.heap import keep_large_blocks
from postern_core.policy import ScreeningPolicy, Section
from postern_core.workers import stop_with_parent
from postern_screener.actions import Actions
from postern_screener.archive import Archive
from postern_screener.contents import opener
from postern_screener.engines.asking import MAX_ASKING_S, EngineDesk
from postern_screener.ruleset import Ruleset, compile_policy
from postern_screener.sandbox import Sandbox, default_command
from postern_screener.screening import screen
from postern_screener.settings import Settings
from postern_screener.trials import Trials
from postern_screener.trials import default_command as trial_command
from postern_screener.watchdog import Watchdog
from postern_screener.worker import MAX_INSPECTION_S, Inspect, Worker

SERVICE: Final = "screener"
_KEEP_EVERY_S: Final = 8.0
# waiting for the sandbox, its start, one inspection, engines and another inspection, then publishes that take their time; after that the broker may
# give it to another
_KEEP_FOR_S: Final = 3 * MAX_INSPECTION_S + MAX_ASKING_S + 40
_MIB: Final = 1024 * 1024


def limit_memory(limit_mib: int) -> None:
    """Limit the address space of this process; 0 leaves it alone."""
    if limit_mib:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mib * _MIB, limit_mib * _MIB))


async def serve(
    bus: Bus,
    stop: asyncio.Event,
    settings: Settings,
    *,
    inspect: Inspect = screen,
    sandbox_command: Sequence[str] | None = None,
) -> None:
    """Screen until `stop`, then drain for at most `settings.drain_s` seconds."""
    if settings.supervised:
        stop_with_parent(stop)
    drained = asyncio.Event()
    events = EventSink(bus, SERVICE)
    watchdog = Watchdog()
    sandbox = Sandbox(sandbox_command or default_command(settings.sandbox_memory_mib))
    archive = Archive(bus)
    engines = EngineDesk()
    trials = Trials(bus, trial_command(settings.sandbox_memory_mib), functools.partial(engines.ask, is_trial=True))
    bodies = BodyStore(bus, SERVICE, settings.inline_limit_bytes)

    def probe() -> dict[str, object]:
        how_engines_are = engines.statuses()
        return {
            "ready": watch.current is not None and not stop.is_set(),
            "revision": watch.revision,
            "policy_error": watch.error,
            "in_flight": consumer.in_flight,
            "engines": how_engines_are,
            "detail": "; ".join(
                [*(f"{each.engine}: {each.error}" for each in how_engines_are if each.state in TROUBLED), *opener.absence()]
            ),
            "counters": worker.counters.told(),
        }

    def take_up(ruleset: Ruleset) -> None:
        engines.follow(ruleset.policy.engines)
        status.poke()

    status = StatusReporter(bus, SERVICE, settings.instance, probe, ready_file=settings.ready_file)
    watch: PolicyWatch[ScreeningPolicy, Ruleset] = PolicyWatch(
        bus,
        Section.SCREENING,
        ScreeningPolicy,
        compile_policy,
        state_dir=settings.state_dir,
        on_change=take_up,
    )
    worker = Worker(
        bodies=bodies,
        actions=Actions(bus, bodies),
        events=events,
        sandbox=sandbox,
        watchdog=watchdog,
        ruleset=lambda: watch.current,
        inspect=inspect,
        archive=archive,
        engines=engines,
    )
    consumer = Consumer(
        bus,
        INTAKE,
        SCREENER_CONSUMER,
        worker.handle,
        concurrency=settings.concurrency,
        keep_every_s=_KEEP_EVERY_S,
        keep_for_s=_KEEP_FOR_S,
        in_turn=True,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch.run(stop), name="policy")
        tasks.create_task(status.run(stop), name="status")
        tasks.create_task(events.run(drained), name="events")
        tasks.create_task(watchdog.run(drained), name="watchdog")
        tasks.create_task(sandbox.run(drained), name="sandbox")
        tasks.create_task(trials.run(stop), name="trials")
        tasks.create_task(archive.run(drained), name="archive")
        tasks.create_task(engines.run(drained), name="engines")
        tasks.create_task(keep_large_blocks(drained), name="heap")
        if await _loaded(watch.loaded, stop):
            await consumer.run(stop, settings.drain_s)
        drained.set()


async def _loaded(loaded: asyncio.Event, stop: asyncio.Event) -> bool:
    """Wait for the first policy; False when `stop` comes first."""
    waits = [asyncio.ensure_future(loaded.wait()), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return loaded.is_set() and not stop.is_set()
