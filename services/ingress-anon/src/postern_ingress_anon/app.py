"""The anonymous gate, put together from its settings."""

from __future__ import annotations

import socket
from functools import partial

from postern_core.envelope import Gate
from postern_ingress_anon.recipients import compile_rules
from postern_ingress_anon.settings import Settings
from postern_smtp.gate import GateProfile
from postern_smtp.gate_service import GateService
from postern_smtp.listener import parse_listen
from postern_smtp.tls import ServerTls


def gate_of(settings: Settings) -> GateService:
    """The gate to serve. ConfigurationError when the certificate cannot be used."""
    tls = None
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        tls = ServerTls(settings.tls_cert_file, settings.tls_key_file, directory=settings.tls_certificates_dir)
    return GateService(
        name="ingress-anon",
        settings=settings,
        profile=GateProfile(
            gate=Gate.ANON,
            fallback_hostname=socket.gethostname(),
            tls=tls.context if tls else None,
            memory_bytes=settings.memory_bytes,
        ),
        compile_rules=partial(compile_rules, resolver=settings.resolver()),
        ports=[(address, None) for address in parse_listen(settings.listen)],
        tls=tls,
    )
