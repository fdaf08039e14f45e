"""Starts clamd when it has signatures to start with: beside a freshclam that fetches the first ones, that takes some minutes.

Replaces itself by clamd, so that signals and exit code are clamd's.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

DATABASE = Path("/var/lib/clamav")
CONFIGURATION = "/opt/postern/clamd.conf"


def has_signatures(folder: Path) -> bool:
    """Whether the main database has been fetched whole: freshclam renames it into place."""
    return any((folder / name).exists() for name in ("main.cvd", "main.cld"))


def main() -> None:
    waited_s = 0
    while not has_signatures(DATABASE):
        if waited_s % 60 == 0:
            print("clamav: waiting for freshclam to fetch the first signatures", flush=True)
        time.sleep(1)
        waited_s += 1
    os.execv("/usr/sbin/clamd", ["clamd", "--config-file", CONFIGURATION])  # noqa: S606


if __name__ == "__main__":
    main()
