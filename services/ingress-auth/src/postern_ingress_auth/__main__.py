"""`python -m postern_ingress_auth`: one worker in this process, or a supervisor of several."""

from postern_core.settings import load
from postern_ingress_auth.app import gate_of
from postern_ingress_auth.settings import Settings
from postern_smtp.gate_service import run_gate

if __name__ == "__main__":
    settings = load(Settings)
    raise SystemExit(run_gate("postern_ingress_auth", settings, lambda bus: gate_of(settings, bus)))
