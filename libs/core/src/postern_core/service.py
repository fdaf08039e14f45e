"""How every service runs: one stop event for SIGTERM and SIGINT, a drain with a deadline, and an end that a supervisor notices.

Exit codes: 0 drained, 70 (EX_SOFTWARE) a task failed, 75 (EX_TEMPFAIL) the broker connection is gone for good, 78 (EX_CONFIG).
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from postern_core.bus.connection import Bus, connect
from postern_core.errors import ConfigurationError
from postern_core.process import allow_open_files, spare_what_lasts, yield_the_core
from postern_core.settings import BusSettings
from postern_core.telemetry import configure_logging

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_HARD_EXIT_S: Final = 10.0

Serve = Callable[[Bus, asyncio.Event], Awaitable[None]]


def run_service(name: str, settings: BusSettings, serve: Serve) -> int:
    """Configure logs, connect, run `serve(bus, stop)` until a signal sets `stop`; returns the exit code.

    `serve` returns after it has drained. The whole end takes at most ten seconds.
    """
    configure_logging(name, settings.instance, settings.log_level, settings.log_format)
    yield_the_core()
    allow_open_files()
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_main(name, settings, serve))
    except ConfigurationError as error:
        print(f"postern: {name}: {error}", file=sys.stderr)
        return 78


async def _main(name: str, settings: BusSettings, serve: Serve) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    connecting = asyncio.ensure_future(connect(settings, name))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not connecting.done():
        connecting.cancel()
        return 0
    bus = await connecting
    log.info("service.started")
    spare_what_lasts(loop)

    serving = asyncio.ensure_future(serve(bus, stop))
    closed = asyncio.ensure_future(bus.closed.wait())
    try:
        await asyncio.wait({serving, closed, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if closed.done():
            log.error("service.bus_lost")
            stop.set()
        await asyncio.wait({serving}, timeout=_HARD_EXIT_S)
        if not serving.done():
            log.error("service.drain_overran", after_s=_HARD_EXIT_S)
            serving.cancel()
            return 70
        if (failure := serving.exception()) is not None:
            if isinstance(failure, ConfigurationError):
                raise failure
            log.error("service.failed", exc_info=failure)
            return 70
        return 75 if closed.done() else 0
    finally:
        closed.cancel()
        stopping.cancel()
        await bus.close()
        log.info("service.stopped")
