"""The `postern` program. An interrupt ends it at once and without a traceback, until a command asks to hear of it.

Python's own handler raises KeyboardInterrupt wherever the program is; a library that is just being imported may swallow that, and the
program would go on.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from postern_cli.main import app

    app()
