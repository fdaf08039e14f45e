"""`python -m postern_ingress_anon`."""

from postern_core.service import run_service
from postern_core.settings import load
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings
from postern_smtp.gate_service import serve_gate

if __name__ == "__main__":
    settings = load(Settings)
    raise SystemExit(run_service("ingress-anon", settings, lambda bus, stop: serve_gate(bus, stop, gate_of(settings, bus))))
