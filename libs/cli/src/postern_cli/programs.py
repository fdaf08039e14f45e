"""The processes of an embedded stack: command, environment and log file of each."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postern_cli.addresses import Addresses, reachable, split_address
from postern_cli.demo import demo_policy
from postern_cli.layout import Layout
from postern_cli.supervisor import Program
from postern_core.broker.files import write_private
from postern_core.broker.names import PROVISIONER, SERVICES
from postern_core.broker.permissions import BrokerAddress, broker_config

BROKER: Final = "nats-server"
SMART_HOST: Final = "smart-host"
# in the order in which mail flows, so that each can still hand over what it holds
STOP_ORDER: Final = (("ingress-anon", "ingress-auth"), ("screener",), ("delivery",), ("api", SMART_HOST), (BROKER,))


@dataclass(frozen=True, slots=True)
class Programs:
    """What to start, in this order: the broker, the two that end by themselves, and then all the others at once.

    What those two load, the broker's client and cryptography, is gone with them."""

    broker: Program
    certificate: Program  # makes one where there is none that is good
    provisioner: Program  # brings the streams to their settings
    others: tuple[Program, ...]


def programs(layout: Layout, addresses: Addresses, broker_binary: Path, workers: int) -> Programs:
    """Write the files that the processes start from, and say how to start them."""
    host, port = split_address(addresses.nats)
    monitor_port = split_address(addresses.monitor)[1]
    # the broker writes its listening address as host:port
    bracketed = f"[{host}]" if ":" in host else host
    broker = BrokerAddress(bracketed, port, monitor_port, str(layout.broker_store))
    write_private(layout.broker_config, broker_config(broker, layout.broker_passwords()))
    # a soft limit: the broker gives back what a burst took
    broker_environment = {"GOMEMLIMIT": "512MiB"} | dict(os.environ)
    return Programs(
        Program(BROKER, (str(broker_binary), "-c", str(layout.broker_config)), broker_environment, layout.log_file(BROKER)),
        _certificate(layout),
        _provisioner(layout, addresses),
        (*_services(layout, addresses, workers), _smart_host(layout, addresses)),
    )


def _services(layout: Layout, addresses: Addresses, workers: int) -> list[Program]:
    policy = demo_policy(addresses.smart_host, layout.demo_password.read_text(encoding="utf-8").strip())
    write_private(layout.bootstrap, json.dumps(policy, indent=2))
    own: dict[str, dict[str, str]] = {
        "ingress-anon": {"POSTERN_LISTEN": addresses.anon},
        "ingress-auth": {
            "POSTERN_LISTEN_STARTTLS": addresses.auth_starttls,
            "POSTERN_LISTEN_TLS": addresses.auth_tls,
            "POSTERN_TLS_CERT_FILE": str(layout.certificate),
            "POSTERN_TLS_KEY_FILE": str(layout.certificate_key),
        },
        "screener": {"POSTERN_WORKERS": str(workers)},
        "delivery": {"POSTERN_DATABASE_URL": f"sqlite+aiosqlite:///{layout.database('queue')}"},
        "api": {
            "POSTERN_LISTEN": addresses.api,
            "POSTERN_DATABASE_URL": f"sqlite+aiosqlite:///{layout.database('control')}",
            "POSTERN_ADMIN_TOKEN_FILE": str(layout.admin_token),
            "POSTERN_BOOTSTRAP_FILE": str(layout.bootstrap),
        },
    }
    return [
        Program(
            service,
            (sys.executable, "-m", f"postern_{service.replace('-', '_')}"),
            _environment() | _bus_environment(layout, addresses, service) | own[service],
            layout.log_file(service),
        )
        for service in SERVICES
    ]


def _smart_host(layout: Layout, addresses: Addresses) -> Program:
    command = (sys.executable, "-m", "postern_cli.demo_smart_host", addresses.smart_host, str(layout.smart_host_mail))
    return Program(SMART_HOST, command, _environment(), layout.log_file(SMART_HOST))


def _certificate(layout: Layout) -> Program:
    command = (sys.executable, "-m", "postern_cli.certificate", str(layout.tls))
    return Program("certificate", command, _environment(), layout.log_file("certificate"))


def _provisioner(layout: Layout, addresses: Addresses) -> Program:
    command = (sys.executable, "-m", "postern_core.bus.provision")
    environment = _environment() | _bus_environment(layout, addresses, PROVISIONER)
    return Program(PROVISIONER, command, environment, layout.log_file(PROVISIONER))


def _bus_environment(layout: Layout, addresses: Addresses, user: str) -> dict[str, str]:
    return {
        "POSTERN_INSTANCE": "embedded",
        "POSTERN_NATS_URL": f"nats://{reachable(addresses.nats)}",
        "POSTERN_NATS_MONITOR_URL": f"http://{reachable(addresses.monitor)}",
        "POSTERN_NATS_USER": user,
        "POSTERN_NATS_PASSWORD_FILE": str(layout.password_file(user)),
        "POSTERN_STATE_DIR": str(layout.service_dir(user)),
        "POSTERN_READY_FILE": str(layout.ready_file(user)),
    }


def _environment() -> dict[str, str]:
    # one arena keeps the memory of a mostly idle Python process small
    return {"MALLOC_ARENA_MAX": "1", "PYTHONUNBUFFERED": "1"} | dict(os.environ)
