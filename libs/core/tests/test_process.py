"""What a process asks of the kernel and of the interpreter."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from postern_core import process
from postern_core.process import spare_what_lasts, yield_the_core

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux' scheduler")


def policy_after(*steps: Callable[[], object]) -> int:
    """The scheduling policy of a thread of its own that takes these steps: a policy is a thread's."""

    def take() -> int:
        for step in steps:
            step()
        return os.sched_getscheduler(0)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(take).result()


@ON_LINUX
def test_who_yields_the_core_takes_it_from_nobody_when_woken() -> None:
    assert policy_after(yield_the_core) == os.SCHED_BATCH


@ON_LINUX
def test_a_policy_that_somebody_chose_stays() -> None:
    def be_idle() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    assert policy_after(be_idle, yield_the_core) == os.SCHED_IDLE


@ON_LINUX
def test_where_it_is_forbidden_the_process_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert policy_after(yield_the_core) == os.SCHED_OTHER


def test_elsewhere_than_on_linux_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCHED_BATCH", "sched_getscheduler", "sched_setscheduler"):
        monkeypatch.delattr(os, name, raising=False)
    yield_the_core()


async def test_what_is_loaded_by_then_is_spared_by_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = asyncio.Event()
    monkeypatch.setattr(gc, "freeze", frozen.set)
    monkeypatch.setattr(process, "_LOADED_S", 0.01)
    spare_what_lasts(asyncio.get_running_loop())
    assert not frozen.is_set()
    async with asyncio.timeout(5):
        await frozen.wait()
