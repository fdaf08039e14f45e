"""The anonymous gate, put together from its settings."""

from __future__ import annotations

import secrets
import socket
from functools import partial

from postern_core.bus import Bus
from postern_core.envelope import Gate
from postern_ingress_anon.greylist import Greylist
from postern_ingress_anon.greylist_peers import GreylistPeers
from postern_ingress_anon.recipients import compile_rules
from postern_ingress_anon.settings import Settings
from postern_ingress_anon.verification import Asked, Directory
from postern_smtp.gate import GateProfile
from postern_smtp.gate_service import GateService
from postern_smtp.ports import parse_listen
from postern_smtp.tls import ServerTls


def gate_of(settings: Settings, bus: Bus) -> GateService:
    """The gate to serve. ConfigurationError when the certificate cannot be used."""
    tls = None
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        tls = ServerTls(settings.tls_cert_file, settings.tls_key_file, directory=settings.tls_certificates_dir)
    asked, greylist = Asked.nobody_yet(_directory(settings)), Greylist(secrets.token_hex(8))
    return GateService(
        name="ingress-anon",
        settings=settings,
        profile=GateProfile(
            gate=Gate.ANON,
            fallback_hostname=socket.gethostname(),
            tls=tls.context if tls else None,
            memory_bytes=settings.memory_bytes,
        ),
        compile_rules=partial(compile_rules, resolver=settings.resolver(), asked=asked, greylist=greylist),
        ports=[(address, False) for address in parse_listen(settings.listen)],
        tls=tls,
        background=[asked.run, GreylistPeers(bus, greylist, settings.state_dir).run],
    )


def _directory(settings: Settings) -> Directory | None:
    configured = settings.directory()
    if configured is None:
        return None
    from postern_ingress_anon.directory import LdapDirectory  # whoever has none need not load it

    return LdapDirectory(configured)
