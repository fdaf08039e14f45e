"""`python -m postern_delivery`."""

from postern_core.service import run_service
from postern_core.settings import load
from postern_delivery.app import serve_with
from postern_delivery.settings import Settings

if __name__ == "__main__":
    settings = load(Settings)
    raise SystemExit(run_service("delivery", settings, serve_with(settings)))
