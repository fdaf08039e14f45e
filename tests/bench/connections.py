"""What connections cost the anonymous gate: idle ones, idle ones inside TLS, dripping ones, and how an honest client fares beside them."""

from __future__ import annotations

import smtplib
import time
from pathlib import Path

import msgspec

from bench.alone import gate_alone
from bench.processes import memory_bytes
from fixtures.auth_gate import write_certificate
from fixtures.crowd import crowd

_SETTLE_S = 2.0
_MESSAGE = b"Subject: hello\r\n\r\nhello\r\n"


class Connections(msgspec.Struct, frozen=True, kw_only=True):
    """KB of 1000 bytes (PSS of the gate's process, above what it takes with nobody there), and milliseconds."""

    idle: int
    dripping: int
    idle_kb: float  # for each
    idle_tls_kb: float
    all_mb: float  # the gate with idle and dripping ones
    honest_ms: float  # from connecting to the 250, the slowest of ten, beside all of them


def measure_connections(directory: Path, idle: int, dripping: int) -> Connections:
    """RuntimeError when the gate turns one away."""
    certificate, key = write_certificate(directory)
    settings = {"POSTERN_TLS_CERT_FILE": str(certificate), "POSTERN_TLS_KEY_FILE": str(key)}
    cost_kb: dict[bool, float] = {}
    all_mb = honest_ms = 0.0
    for tls in (False, True):
        below = directory / f"connections-{'tls' if tls else 'plain'}"
        below.mkdir()
        with gate_alone(below, **settings) as gate:
            pids = list(gate.services["gate"])
            _honest(gate.port)
            time.sleep(_SETTLE_S)
            before = memory_bytes(pids)
            with crowd(gate.port, idle=idle, tls=tls):
                cost_kb[tls] = (memory_bytes(pids) - before) / idle / 1000
                if not tls:
                    with crowd(gate.port, idle=0, dripping=dripping):
                        honest_ms = max(_honest(gate.port) for _ in range(10))
                        all_mb = memory_bytes(pids) / 1e6
    return Connections(
        idle=idle,
        dripping=dripping,
        idle_kb=round(cost_kb[False], 1),
        idle_tls_kb=round(cost_kb[True], 1),
        all_mb=round(all_mb, 1),
        honest_ms=round(honest_ms, 1),
    )


def _honest(port: int) -> float:
    begun = time.monotonic()
    with smtplib.SMTP("127.0.0.1", port, timeout=30, local_hostname="client.example") as client:
        client.sendmail("x@sender.example", ["a@relay.example"], _MESSAGE)
        return (time.monotonic() - begun) * 1000
