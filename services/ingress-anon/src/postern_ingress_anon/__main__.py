"""`python -m postern_ingress_anon`: one worker in this process, or a supervisor of several."""

from postern_core.settings import load
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings
from postern_smtp.gate_service import run_gate

if __name__ == "__main__":
    settings = load(Settings)
    raise SystemExit(run_gate("postern_ingress_anon", settings, lambda bus: gate_of(settings, bus)))
