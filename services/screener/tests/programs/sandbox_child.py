"""The sandbox's child with the broken inspection."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from broken_inspection import inspect

from postern_screener.sandbox_child import run

raise SystemExit(run(int(sys.argv[1]), inspect))
