"""Starts the screener: one worker in this process, or a supervisor of several."""

from __future__ import annotations

import functools

from postern_core.service import run_service
from postern_core.settings import load
from postern_core.workers import command_of, run_supervisor
from postern_screener.app import limit_memory, serve
from postern_screener.settings import Settings


def main() -> int:
    """Returns the exit code."""
    settings = load(Settings)
    if settings.workers > 1:
        return run_supervisor("screener", settings, command_of("postern_screener"))
    limit_memory(settings.memory_limit_mib)
    return run_service("screener", settings, functools.partial(serve, settings=settings))


if __name__ == "__main__":
    raise SystemExit(main())
