"""Archives that libarchive reads (7z, rar, cab, iso and others), each in a child process: `opener_child.py`.

A child costs some hundredths of a second, which such an archive is worth: what hangs, exhausts memory or crashes in it ends with it, whatever libarchive does in
one step. Without libarchive on the machine these kinds are not opened, which is an obstacle for each of them.
"""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Final

import structlog

from postern_screener.contents.budget import Budget
from postern_screener.contents.compressed import without_suffix
from postern_screener.contents.entry import Content, Entry, ObstacleKind, OpeningError, Trouble
from postern_screener.contents.opener_child import NO_LIBRARY

log: structlog.stdlib.BoundLogger = structlog.get_logger()

OPENED: Final = frozenset({"7z", "rar", "cab", "iso", "lha", "cpio", "ar", "lzip", "zstd", "lz4", "compress"})
SINGLE: Final = frozenset({"lzip", "zstd", "lz4", "compress"})  # one file without a name
_PROGRAM: Final = str(Path(__file__).with_name("opener_child.py"))
_FRAME: Final = struct.Struct(">cI")
_MEMORY_MIB: Final = 512
_WALL_FACTOR: Final = 3  # of the CPU time that is left: a busy machine may take its time
_LEAST_WALL_S: Final = 1.0
_missing = threading.Event()  # libarchive is not on this machine


def absence() -> list[str]:
    """A sentence for the status, once an archive could not be opened for want of libarchive; none before."""
    return ["libarchive is not on this machine: 7z, rar and other archives are not opened"] if _missing.is_set() else []


def library_version() -> str:
    """What libarchive says of itself, "" when it is not there. Takes as long as to start a process."""
    try:
        ran = subprocess.run(_command("check", 5), capture_output=True, timeout=10, check=False, env=_environment())
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout.decode("ascii", "replace") if ran.returncode == 0 else ""


def open_with_library(kind: str, content: Content, name: str, budget: Budget) -> Iterator[Entry | Trouble]:
    """The files in it; OpeningError when it ends early."""
    yield from volume_troubles(kind, content)
    if _missing.is_set():
        raise OpeningError(ObstacleKind.UNSUPPORTED, f"{kind} is not opened: libarchive is not on this machine")
    budget.check()
    seconds = budget.seconds_left
    try:
        child = subprocess.Popen(
            _command(kind, math.ceil(seconds)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # a signal to our group (Ctrl-C) must not make an archive look damaged
        )
    except OSError as error:
        raise OpeningError(ObstacleKind.UNSUPPORTED, f"{kind} is not opened: {error.strerror}") from error
    assert child.stdin is not None
    assert child.stdout is not None
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        child.kill()

    timer = threading.Timer(max(seconds * _WALL_FACTOR, _LEAST_WALL_S), kill)
    timer.daemon = True
    timer.start()
    is_whole, has_ended, begun = False, False, time.monotonic()
    try:
        _feed(child.stdin, content)
        is_whole = yield from _entries(child.stdout, kind, name, budget)
        has_ended = True
    finally:
        if not has_ended:  # nobody wants the rest
            child.kill()
        child.stdout.close()
        code = child.wait()
        timer.cancel()
        # a message full of small archives must not have a child for each without end
        budget.charge(time.monotonic() - begun)
    if not is_whole:
        _explain(kind, code, budget, was_killed=killed.is_set())


def volume_troubles(kind: str, content: Content) -> Iterator[Trouble]:
    """RAR archives that go over several files say so in their first header."""
    if kind != "rar":
        return
    if content[:7] == b"Rar!\x1a\x07\x00" and content[9:10] == b"\x73" and int.from_bytes(content[10:12], "little") & 0x0001:
        yield Trouble(ObstacleKind.MULTI_VOLUME, "rar: one of several volumes")
    if content[:8] == b"Rar!\x1a\x07\x01\x00" and _is_rar5_volume(bytes(content[8:64])):
        yield Trouble(ObstacleKind.MULTI_VOLUME, "rar: one of several volumes")


def _is_rar5_volume(header: bytes) -> bool:
    """CRC, size, type 1, flags, size of the extra area where flags say so, then the archive's own flags: variable-length numbers."""
    at, numbers = 4, []
    for _ in range(5):
        value, shift = 0, 0
        while at < len(header):
            value |= (header[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not header[at - 1] & 0x80:
                break
        numbers.append(value)
    flags = numbers[4] if numbers[2] & 0x0001 else numbers[3]
    return numbers[1] == 1 and bool(flags & 0x0001)


def _command(kind: str, seconds: int) -> list[str]:
    # -I, -S: nothing of the environment or of site-packages, which makes it start in a third of the time
    return [sys.executable, "-I", "-S", _PROGRAM, kind, str(_MEMORY_MIB), str(max(seconds, 1))]


def _environment() -> dict[str, str]:
    """No secrets, and names in UTF-8."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C.UTF-8"}


def _feed(to: IO[bytes], content: Content) -> None:
    try:
        to.write(content)
        to.close()
    except (BrokenPipeError, ValueError):
        return  # it ended before it had read everything: its exit code says why


def _entries(source: IO[bytes], kind: str, name: str, budget: Budget) -> Generator[Entry | Trouble, None, bool]:
    """What the child tells; whether it came to the end of the archive or said why not."""
    current: str | None = None
    content = bytearray()
    unread = False
    while len(frame := source.read(_FRAME.size)) == _FRAME.size:
        letter, length = _FRAME.unpack(frame)
        data = source.read(length)
        if letter == b"D":
            budget.spend(len(data))
            content += data
            continue
        if letter == b"T":
            which, _, reason = data.decode("utf-8", "replace").partition(" ")
            yield Trouble(ObstacleKind(which), f"{kind}: {reason}", current or "")
            unread = not content
            if current is not None and unread:
                yield Entry((current,), None)
                current = None
            continue
        if current is not None:
            yield Entry((current,), content)
        current, content, unread = None, bytearray(), False
        if letter == b"E":
            return True
        budget.entry()
        current = without_suffix(name) if kind in SINGLE else data.decode("utf-8", "replace")
    if current is not None:
        yield Entry((current,), content or None)
    return False


def _explain(kind: str, code: int, budget: Budget, *, was_killed: bool) -> None:
    """Why the child did not come to the end, unless it said so itself (code 0)."""
    if code == NO_LIBRARY:
        _missing.set()
        log.warning("contents.library_missing", library="libarchive", kinds=sorted(OPENED))
        raise OpeningError(ObstacleKind.UNSUPPORTED, f"{kind} is not opened: libarchive is not on this machine")
    if was_killed or code in (-signal.SIGXCPU, -signal.SIGKILL):
        budget.out_of_time()
    if code:
        raise OpeningError(ObstacleKind.DAMAGED, f"{kind}: its reader ended with {code}")
