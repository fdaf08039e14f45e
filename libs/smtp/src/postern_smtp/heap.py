"""Memory of large messages goes back to the system when they are stored.

glibc takes a large block from the system and gives it back when it is freed, but each time that it does it raises the size from which on it
does so, up to 32 MiB: after some messages of 10 MiB they lie in the heap, where one small block above them keeps them for good. A size that is
set stays. Another C library does as it likes, and an administrator's MALLOC_MMAP_THRESHOLD_ counts.
Source: mallopt(3), M_MMAP_THRESHOLD.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_BLOCK_BYTES: Final = 1024 * 1024  # from this size on; smaller ones are not worth two system calls each
_HEAP_BYTES: Final = 16 * 1024 * 1024  # free memory at the heap's end that is kept: mail of usual size comes and goes there


def give_back_large_blocks() -> bool:
    """For the whole process; whether the C library is one that listens."""
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _HEAP_BYTES))
