"""The authenticated gate, put together from its settings."""

from __future__ import annotations

import secrets
import socket
from functools import partial

from postern_core.bus import Bus
from postern_core.envelope import Gate
from postern_core.errors import ConfigurationError
from postern_core.policy import Throttling
from postern_ingress_auth.accounts import Accounts
from postern_ingress_auth.control import Control
from postern_ingress_auth.credentials import UserCredentials
from postern_ingress_auth.peers import Peers
from postern_ingress_auth.recipients import compile_rules
from postern_ingress_auth.settings import Settings
from postern_ingress_auth.shared import Shared
from postern_ingress_auth.users import Users
from postern_smtp.gate import GateProfile
from postern_smtp.gate_service import GateService
from postern_smtp.listener import Listener
from postern_smtp.ports import parse_listen
from postern_smtp.tls import ServerTls


def gate_of(settings: Settings, bus: Bus) -> GateService:
    """The gate to serve. ConfigurationError when the certificate cannot be used, or there is nothing to listen on."""
    tls = ServerTls(
        settings.tls_cert_file,
        settings.tls_key_file,
        directory=settings.tls_certificates_dir,
        client_authorities=settings.tls_client_ca_file,
    )
    starttls = parse_listen(settings.listen_starttls) if settings.listen_starttls else ()
    implicit = parse_listen(settings.listen_tls) if settings.listen_tls else ()
    if not starttls and not implicit:
        raise ConfigurationError("set POSTERN_LISTEN_STARTTLS or POSTERN_LISTEN_TLS: there is no address to listen on")
    running: list[Listener] = []

    def throttling() -> Throttling:
        rules = running[0].newest_rules() if running else None
        return rules.listener.throttling if rules is not None else Throttling()

    shared, users = Shared(secrets.token_hex(8), throttling), Users(bus)
    accounts = Accounts(users, shared)
    credentials = UserCredentials(bus, users, shared, concurrency=settings.auth_concurrency, max_attempts=settings.auth_attempts)

    def attach(listener: Listener) -> None:
        running.append(listener)
        accounts.attach(listener.newest_rules, listener.notice)
        credentials.attach(listener.notice)

    return GateService(
        name="ingress-auth",
        settings=settings,
        profile=GateProfile(
            gate=Gate.AUTH,
            fallback_hostname=socket.gethostname(),
            tls=tls.context,
            tls_required=True,
            authenticator=credentials,
            memory_bytes=settings.memory_bytes,
        ),
        compile_rules=partial(compile_rules, resolver=settings.resolver(), account=accounts),
        ports=[*((address, False) for address in starttls), *((address, True) for address in implicit)],
        tls_ports=tls.context,
        tls=tls,
        attach=attach,
        background=[Peers(bus, shared).run, Control(bus, shared).run],
    )
