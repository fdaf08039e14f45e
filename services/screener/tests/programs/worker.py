"""A worker with the broken inspection, in its process and in its sandbox."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from broken_inspection import inspect

from postern_core.service import run_service
from postern_core.settings import load
from postern_screener.app import limit_memory, serve
from postern_screener.settings import Settings

settings = load(Settings)
limit_memory(settings.memory_limit_mib)
child = (sys.executable, str(Path(__file__).with_name("sandbox_child.py")), "512")
raise SystemExit(
    run_service("screener", settings, functools.partial(serve, settings=settings, inspect=inspect, sandbox_command=child))
)
