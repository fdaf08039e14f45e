"""Who may publish and subscribe to what on the bus: the narrowest subjects for each service, and the broker configuration made of them.

todo: prove every cell against a real server, and show the table in docs/reference.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from postern_core.bus.connection import inbox_prefix
from postern_core.bus.topology import RECORDER_CONSUMER, SCREENER_CONSUMER

PROVISIONER = "provisioner"
SERVICES = ("ingress-anon", "ingress-auth", "screener", "delivery", "api")


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that one broker user may publish and subscribe to; `answers` lets it reply to requests."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


def _common(service: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    publish = (f"event.{service}.*", f"$KV.STATUS.{service}.*")
    return publish, (f"{inbox_prefix(service)}.>",)


def _reads_policy(section: str) -> str:
    return f"$JS.API.DIRECT.GET.KV_POLICY.$KV.POLICY.{section}"


def permissions_of(user: str) -> Permissions:
    """The permissions of a service or of the provisioner. KeyError for any other name."""
    if user == PROVISIONER:
        # creates streams and consumers before the services start, and is gone when they run
        return Permissions(("$JS.API.>",), (f"{inbox_prefix(user)}.>",))
    publish, subscribe = _common(user)
    more = _TABLE[user]
    return Permissions(publish + more.publish, subscribe + more.subscribe, more.answers)


def _gate(service: str, gate: str, *more: str) -> Permissions:
    return Permissions(
        publish=(
            f"intake.{gate}.*",
            f"body.{service}.*.*",
            # to compare after a time-out; its own bodies only
            f"$JS.API.DIRECT.GET.BODIES.body.{service}.*.*",
            _reads_policy("gates"),
            *more,
        ),
        subscribe=("policy.changed.gates",),
    )


_TABLE: Mapping[str, Permissions] = {
    "ingress-anon": _gate("ingress-anon", "anon"),
    "ingress-auth": _gate("ingress-auth", "auth", "$JS.API.DIRECT.GET.KV_USERS.$KV.USERS.*.*"),
    "screener": Permissions(
        publish=(
            f"$JS.API.CONSUMER.MSG.NEXT.INTAKE.{SCREENER_CONSUMER}",
            f"$JS.ACK.INTAKE.{SCREENER_CONSUMER}.>",
            "outbound.*.*",
            "quarantine.*",
            "disposition.*.*",
            "body.screener.*.*",
            "$JS.API.DIRECT.GET.BODIES.body.>",
            "$JS.API.STREAM.PURGE.BODIES",
            # whether a body that is gone was deleted by its next owner
            "$JS.API.DIRECT.GET.DISPOSITIONS.disposition.>",
            _reads_policy("screening"),
        ),
        subscribe=("policy.changed.screening",),
    ),
    "delivery": Permissions(
        publish=(
            "$JS.API.CONSUMER.MSG.NEXT.OUTBOUND.*",
            "$JS.API.CONSUMER.NAMES.OUTBOUND",
            "$JS.ACK.OUTBOUND.*.>",
            "outbound.*.*",
            "deferred.*",
            "badmail.*",
            "disposition.*.*",
            "body.delivery.*.*",
            "$JS.API.DIRECT.GET.BODIES.body.>",
            "$JS.API.DIRECT.GET.DISPOSITIONS.disposition.>",
            "$JS.API.DIRECT.GET.DEFERRED",
            "$JS.API.DIRECT.GET.DEFERRED.>",
            "$JS.API.DIRECT.GET.BADMAIL",
            "$JS.API.DIRECT.GET.BADMAIL.>",
            "$JS.API.STREAM.MSG.DELETE.DEFERRED",
            "$JS.API.STREAM.MSG.DELETE.BADMAIL",
            "$JS.API.STREAM.PURGE.BODIES",
            *(f"$JS.API.STREAM.INFO.{s}" for s in ("INTAKE", "OUTBOUND", "DEFERRED", "QUARANTINE", "BADMAIL", "BODIES")),
            _reads_policy("delivery"),
            "$JS.API.DIRECT.GET.KV_SECRETS.$KV.SECRETS.*.*",
        ),
        subscribe=("policy.changed.delivery", "control.delivery.*"),
        answers=True,
    ),
    "api": Permissions(
        publish=(
            "control.delivery.*",
            f"$JS.API.CONSUMER.MSG.NEXT.DISPOSITIONS.{RECORDER_CONSUMER}",
            f"$JS.API.CONSUMER.MSG.NEXT.EVENTS.{RECORDER_CONSUMER}",
            f"$JS.ACK.DISPOSITIONS.{RECORDER_CONSUMER}.>",
            f"$JS.ACK.EVENTS.{RECORDER_CONSUMER}.>",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.CONSUMER.INFO.*.*",
            "$JS.API.CONSUMER.NAMES.OUTBOUND",
            # one consumer for each new route; the filter is part of the subject
            "$JS.API.CONSUMER.CREATE.OUTBOUND.*.outbound.*.*",
            "outbound.*.*",
            "disposition.*.*",
            "body.api.*.*",
            "$JS.API.DIRECT.GET.QUARANTINE",
            "$JS.API.DIRECT.GET.QUARANTINE.>",
            "$JS.API.DIRECT.GET.BODIES.body.>",
            "$JS.API.DIRECT.GET.DISPOSITIONS",
            "$JS.API.DIRECT.GET.DISPOSITIONS.disposition.>",
            "$JS.API.STREAM.MSG.DELETE.QUARANTINE",
            "$JS.API.STREAM.PURGE.BODIES",
            "$KV.POLICY.*",
            "$KV.USERS.*.*",
            "$KV.SECRETS.*.*",
            "$JS.API.DIRECT.GET.KV_POLICY.>",
            "$JS.API.DIRECT.GET.KV_USERS.>",
            "$JS.API.DIRECT.GET.KV_STATUS",
            "$JS.API.DIRECT.GET.KV_STATUS.>",
        ),
        subscribe=("status.changed.>",),
    ),
}


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker listens and keeps its files."""

    host: str
    port: int
    monitor_port: int
    store_dir: str
    max_file_store: int = 0  # bytes; 0: `store_budget` of `store_dir`


def store_budget(store_dir: Path) -> int:
    """Bytes that the broker may use: 70 % of what its file system has for it, free and already used by it together.

    The broker's own default is a share of what is *free* when it starts: with much mail waiting it would refuse every publish after a
    restart, also those that let mail move on.
    """
    existing = next(path for path in (store_dir, *store_dir.parents) if path.exists())
    used = sum(file.stat().st_blocks * 512 for file in store_dir.rglob("*") if file.is_file()) if store_dir.exists() else 0
    return (shutil.disk_usage(existing).free + used) * 7 // 10


MAX_PAYLOAD_BYTES = 8 * 1024 * 1024


def broker_config(address: BrokerAddress, passwords: Mapping[str, str], *, server_name: str = "postern") -> str:
    """A complete nats-server configuration: durable JetStream, one user for each service with its own permissions.

    Contains the passwords in the clear: write it where only the broker can read it.
    """
    quoted = json.dumps
    return "\n".join(
        (
            f"server_name: {quoted(server_name)}",
            f"listen: {quoted(f'{address.host}:{address.port}')}",
            f"http: {quoted(f'{address.host}:{address.monitor_port}')}",
            f"max_payload: {MAX_PAYLOAD_BYTES}",
            "write_deadline: 10s",
            "jetstream {",
            f"  store_dir: {quoted(address.store_dir)}",
            f"  max_file_store: {address.max_file_store or store_budget(Path(address.store_dir))}",
            "  # the default acknowledges up to two minutes before it syncs; every service refuses a broker without this line",
            "  sync_interval: always",
            "}",
            broker_authorization(passwords),
        )
    )


def broker_authorization(passwords: Mapping[str, str]) -> str:
    """The block of a configuration with our users, for a broker whose other settings are not ours. Contains the passwords in the clear."""
    users = [_user(user, passwords[user]) for user in (*SERVICES, PROVISIONER)]
    return "\n".join(("authorization {", "  users: [", *users, "  ]", "}", ""))


def _user(user: str, password: str) -> str:
    permissions = permissions_of(user)
    answers = ", allow_responses: { max: 1, expires: 30s }" if permissions.answers else ""
    return (
        f"    {{ user: {json.dumps(user)}, password: {json.dumps(password)}, permissions: {{\n"
        f"      publish: {{ allow: {json.dumps(permissions.publish)} }}\n"
        f"      subscribe: {{ allow: {json.dumps(permissions.subscribe)} }}{answers}\n"
        "    } }"
    )
