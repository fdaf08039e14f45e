"""Memory of large messages stays at hand while they come, and goes back to the system some seconds after.

glibc gives a large block back when it is freed, and takes the next one fresh: the system then clears each page and maps it at its first touch, by
which a copy of a megabyte costs as much as the megabyte's SHA-256. Left to itself it also raises, each time, the size from which on it does so, up to
32 MiB: blocks then lie in the heap, where one small block above them keeps them for good. Here they lie in the heap from the start, and what is
free there, wherever it is, is given back every few seconds.
Another C library does as it likes, and an administrator's MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_ counts.
Source: mallopt(3), malloc_trim(3), mallinfo2(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_BLOCK_BYTES: Final = 32 * 1024 * 1024  # the most that glibc takes; what is larger comes from the system, and goes back at once
_NEVER_BYTES: Final = 2**31 - 1
_KEPT_BYTES: Final = 16 * 1024 * 1024  # free memory that is not worth giving back: mail of usual size comes and goes there
_LOOK_EVERY_S: Final = 5.0
_HAS_WORKED_S: Final = 0.05  # CPU time; in a process that did less there is nothing new to give back
_MALLINFO2: Final = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO2]


def give_back() -> None:
    """Give free memory back to the system now, all of it: around work that takes much more than is needed afterwards. For a thread, since it may
    take some milliseconds; where the C library is another one it does nothing."""
    try:
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
    except (OSError, AttributeError):
        return


async def keep_large_blocks(stop: asyncio.Event) -> None:
    """Until `stop`. Returns at once where the C library is another one, or the administrator has set it up."""
    if any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")):
        return
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc_trim, mallinfo2 = libc.mallopt, libc.malloc_trim, libc.mallinfo2
    except (OSError, AttributeError):
        return
    mallinfo2.restype = _Mallinfo2
    mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _NEVER_BYTES)
    worked_s = 0.0
    while not stop.is_set():
        if mallinfo2().fordblks > _KEPT_BYTES and time.process_time() - worked_s > _HAS_WORKED_S:
            malloc_trim(ctypes.c_size_t(_KEPT_BYTES))
            worked_s = time.process_time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY_S):
                await stop.wait()
