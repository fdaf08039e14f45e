"""Health of a service without a port of its own: a file that it keeps fresh while it is ready.

`python -m postern_core.healthcheck` exits 0 when the file named by `POSTERN_READY_FILE` is fresh, else 1 with a line that says why. What
the file holds is shown: a gate that an administrator paused is healthy, and says that it is paused.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

FRESH_S: Final = 20.0


def mark_ready(path: Path, *, ready: bool, detail: str = "") -> None:
    """Write `path`, or remove it when the service is not ready. A file that cannot be written is as good as not ready."""
    try:
        if ready:
            path.write_text(detail, encoding="utf-8")
            path.touch()  # also where there is nothing to write
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        print(f"postern: POSTERN_READY_FILE: {error}", file=sys.stderr)


def main() -> int:
    """See the module."""
    path = os.environ.get("POSTERN_READY_FILE", "")
    if not path:
        print("POSTERN_READY_FILE is not set")
        return 1
    try:
        age_s, detail = time.time() - Path(path).stat().st_mtime, Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        print("not ready")
        return 1
    if age_s > FRESH_S:
        print(f"not ready for {age_s:.0f} s")
        return 1
    if detail:
        print(detail)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
