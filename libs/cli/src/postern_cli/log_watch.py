"""Shows warnings and errors of all processes on the console, one short line each; the whole story is in the log files.

A few lines a second and process at most; what is left out is counted. Told, not promised: a line that is half written at the moment of
reading waits for the next look.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

_EVERY_S: Final = 0.5
_AT_ONCE: Final = 5
_READ_BYTES: Final = 1024 * 1024
_LEVELS: Final = frozenset({"warning", "error", "critical"})
_HIDDEN: Final = frozenset({"event", "level", "timestamp", "service", "instance", "exception"})


class LogWatch:
    """Follows log files from their present end on."""

    def __init__(self, files: Iterable[Path], show: Callable[[str], None]) -> None:
        self._show = show
        self._read_up_to = {file: file.stat().st_size if file.exists() else 0 for file in files}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            self.look()

    def look(self) -> None:
        """Show what was written since the last look."""
        for file, start in self._read_up_to.items():
            fresh = _complete_lines(file, start)
            self._read_up_to[file] = start + len(fresh)
            worth = [line for line in map(condensed, fresh.decode(errors="replace").splitlines()) if line]
            for line in worth[:_AT_ONCE]:
                self._show(f"{file.stem:13} {line}")
            if len(worth) > _AT_ONCE:
                self._show(f"{file.stem:13} … and {len(worth) - _AT_ONCE} more, in {file}")


def _complete_lines(file: Path, start: int) -> bytes:
    try:
        with file.open("rb") as log:
            log.seek(start)
            fresh = log.read(_READ_BYTES)
    except FileNotFoundError:
        return b""
    end = fresh.rfind(b"\n") + 1
    # a line that never ends is passed over in blocks
    return fresh[:end] if end or len(fresh) < _READ_BYTES else fresh


def condensed(line: str) -> str:
    """A log line in short when it is a warning or worse, else ""."""
    if line.startswith("postern: ") or " [ERR] " in line or " [FTL] " in line:
        return line[:300]
    if '"warning"' not in line and '"error"' not in line and '"critical"' not in line:
        return ""
    try:
        event: Any = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(event, dict) or event.get("level") not in _LEVELS:
        return ""
    fields = " ".join(f"{name}={value}" for name, value in event.items() if name not in _HIDDEN)
    return f"{event['level']}: {event.get('event', '')} {fields}"[:300].rstrip()
