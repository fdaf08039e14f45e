"""`python -m postern_api`."""

import postern_core  # noqa: F401  (before structlog: see there)
from postern_api.app import serve_with
from postern_api.settings import Settings
from postern_core.service import run_service
from postern_core.settings import load

if __name__ == "__main__":
    settings = load(Settings)
    raise SystemExit(run_service("api", settings, serve_with(settings)))
