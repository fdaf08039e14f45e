"""What every Postern service shares: the words of mail, the contracts on the bus, and the bus itself.

Knows no SMTP server, no database and no HTTP framework (import-linter keeps that).
"""

import sys

if not {"structlog", "rich"} & sys.modules.keys():
    # structlog draws in rich where it finds it, for tracebacks that nobody sees here: five megabytes in each process
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog  # noqa: F401

    del sys.modules["rich"]
