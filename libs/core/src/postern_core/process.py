"""What a process asks of the kernel and of the interpreter, so that a core that is busy gets more done."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import sys
from collections.abc import Iterator
from typing import Final

_USUAL_SWITCH_S: Final = sys.getswitchinterval()
_GIVE_WAY_S: Final = 0.0005
_LOADED_S: Final = 5.0  # after its start a service has imported and built whatever lasts as long as it does


def yield_the_core() -> None:
    """Not to take the core away from whoever runs, when woken: Linux' SCHED_BATCH, for this thread and all that it starts from now on.

    A message wakes one process after another. Each would interrupt the one that has just handed it on, in the middle of the next message, and find
    the core's caches full of that one's data. Whoever waits for his turn instead has several messages at hand then. The share of the cores is the
    same. Where an administrator chose another policy it stays, and elsewhere than on Linux nothing happens.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    with contextlib.suppress(OSError):  # a sandbox that forbids it: then it is slower
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def allow_open_files() -> None:
    """As many open files, sockets above all, as the system lets this process have (RLIMIT_NOFILE); many start it with 1024 and allow much more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # a system without a hard limit: what it gives is enough
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def giving_way() -> Iterator[None]:
    """For long work in a thread: whoever else wants the interpreter waits half a millisecond for it and not five, twice for each turn of the loop.
    It counts for the whole process, which switches more often meanwhile, and ends with the first of several such works."""
    sys.setswitchinterval(_GIVE_WAY_S)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_SWITCH_S)


def spare_what_lasts(loop: asyncio.AbstractEventLoop) -> None:
    """Take what the service has loaded by then, modules above all, out of what the garbage collector goes through again and again."""
    loop.call_later(_LOADED_S, gc.freeze)
