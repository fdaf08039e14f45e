"""Who may publish and subscribe to what on the bus: the narrowest subjects for each service, and the broker configuration made of them.

Each service is a broker account of its own, and the streams are in another one (`STREAMS_ACCOUNT`) that exports each subject of this
table to the services named for it, one by one. Subjects alone would not do: the broker checks the subject that a client publishes to,
and not the reply subject that it names, so that inside one account the answer to a permitted request can be sent to any subject at all
(a stream's, a bucket's, the JetStream API's). In an account of its own it reaches nobody but the client itself.

The table is shown in docs/reference/permissions.md, and tests/test_permissions.py proves it against a real server.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postern_core.accounts import PEERS_SUBJECT
from postern_core.broker.names import PROVISIONER, RECORDER_CONSUMER, SCREENER_CONSUMER, SERVICES, inbox_prefix
from postern_core.greylist import GREYLIST_SUBJECT

STREAMS_ACCOUNT: Final = "POSTERN"

# the requests that a service answers, and that the api alone may make; those to a gate name the replica, or none
_CONTROL: Final[Mapping[str, str]] = {
    "delivery": "control.delivery.*",
    "screener": "control.screener.*",
    "ingress-anon": "control.ingress-anon.*.*",
    "ingress-auth": "control.ingress-auth.*.*",
}
# what the replicas of a service tell each other: it does not leave their account
_PEERS: Final[Mapping[str, str]] = {"ingress-anon": GREYLIST_SUBJECT, "ingress-auth": PEERS_SUBJECT}
# seconds until the broker forgets that a service may answer a request; a trial of rules takes its time (postern_core.trial)
_ANSWER_WITHIN_S: Final[Mapping[str, int]] = {"screener": 90}
_PULLS: Final = "$JS.API.CONSUMER.MSG.NEXT."  # many answers to one request
# the broker forgets where answers go after this time without one, by default two minutes; a pull lives for five seconds
_MANY_ANSWERS: Final = ', response_type: stream, response_threshold: "15s"'
# imported into every account, not for its answer: without it the broker gives an account that has no streams an API of its own,
# which answers each request a second time, with an error
_API_MARK: Final = "$JS.API.INFO"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that one broker user may publish and subscribe to; `answers` lets it reply to requests, once each."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


def account_of(user: str) -> str:
    """The broker account in which a user lives."""
    return STREAMS_ACCOUNT if user == PROVISIONER else user.upper().replace("-", "_")


def permissions_of(user: str) -> Permissions:
    """The permissions of a service or of the provisioner. KeyError for any other name."""
    if user == PROVISIONER:
        # creates streams and consumers before the services start, and is gone when they run: no service ever has its password
        return Permissions(("$JS.API.>",), (f"{inbox_prefix(user)}.>",))
    more = _TABLE[user]
    peers = (_PEERS[user],) if user in _PEERS else ()
    answered = (_CONTROL[user],) if user in _CONTROL else ()
    return Permissions(
        publish=(f"event.{user}.*", f"$KV.STATUS.{user}.*", *peers, *more.publish),
        subscribe=(f"{inbox_prefix(user)}.>", *peers, *answered, *more.subscribe),
        answers=bool(answered),
    )


def _reads_policy(section: str) -> str:
    return f"$JS.API.DIRECT.GET.KV_POLICY.$KV.POLICY.{section}"


def _gate(service: str, gate: str, *more: str) -> Permissions:
    return Permissions(
        publish=(f"intake.{gate}.*", f"body.{service}.*.*", _reads_policy("gates"), *more),
        subscribe=("policy.changed.gates",),
    )


_TABLE: Mapping[str, Permissions] = {
    "ingress-anon": _gate("ingress-anon", "anon"),
    "ingress-auth": _gate("ingress-auth", "auth", "$JS.API.DIRECT.GET.KV_USERS.$KV.USERS.user.*"),
    "screener": Permissions(
        publish=(
            f"{_PULLS}INTAKE.{SCREENER_CONSUMER}",
            f"$JS.ACK.INTAKE.{SCREENER_CONSUMER}.>",
            "outbound.*.*",
            "quarantine.*",
            "archive.*",
            "disposition.*.*",
            "body.screener.*.*",
            "$JS.API.DIRECT.GET.BODIES.body.*.*.*",
            "$JS.API.STREAM.PURGE.BODIES",
            # whether a body that is gone was deleted by its next owner
            "$JS.API.DIRECT.GET.DISPOSITIONS.disposition.*.*",
            "$JS.API.STREAM.INFO.DISPOSITIONS",  # those of a batch have subjects that nobody can guess
            _reads_policy("screening"),
        ),
        subscribe=("policy.changed.screening",),
    ),
    "delivery": Permissions(
        publish=(
            f"{_PULLS}OUTBOUND.*",
            "$JS.API.CONSUMER.NAMES.OUTBOUND",
            "$JS.ACK.OUTBOUND.*.>",
            "outbound.*.*",
            "deferred.*",
            "badmail.*",
            "disposition.*.*",
            "body.delivery.*.*",
            "$JS.API.DIRECT.GET.BODIES.body.*.*.*",
            "$JS.API.DIRECT.GET.DISPOSITIONS.disposition.*.*",
            "$JS.API.DIRECT.GET.DEFERRED.deferred.*",
            "$JS.API.DIRECT.GET.BADMAIL.badmail.*",
            "$JS.API.STREAM.MSG.DELETE.DEFERRED",
            "$JS.API.STREAM.MSG.DELETE.BADMAIL",
            "$JS.API.STREAM.PURGE.BODIES",
            # subjects of stored mail, to find bodies without an owner
            *(f"$JS.API.STREAM.INFO.{s}" for s in ("INTAKE", "OUTBOUND", "DEFERRED", "QUARANTINE", "BADMAIL", "BODIES")),
            "$JS.API.STREAM.INFO.DISPOSITIONS",  # those of a batch have subjects that nobody can guess
            _reads_policy("delivery"),
            "$JS.API.DIRECT.GET.KV_SECRETS.$KV.SECRETS.route.*",
        ),
        subscribe=("policy.changed.delivery",),
    ),
    "api": Permissions(
        publish=(
            *_CONTROL.values(),
            f"{_PULLS}DISPOSITIONS.{RECORDER_CONSUMER}",
            f"{_PULLS}EVENTS.{RECORDER_CONSUMER}",
            f"$JS.ACK.DISPOSITIONS.{RECORDER_CONSUMER}.>",
            f"$JS.ACK.EVENTS.{RECORDER_CONSUMER}.>",
            "$JS.API.STREAM.INFO.*",
            # what each of our consumers still has to do, to find mail that none of them knows
            f"$JS.API.CONSUMER.INFO.INTAKE.{SCREENER_CONSUMER}",
            "$JS.API.CONSUMER.INFO.OUTBOUND.*",
            f"$JS.API.CONSUMER.INFO.DISPOSITIONS.{RECORDER_CONSUMER}",
            f"$JS.API.CONSUMER.INFO.EVENTS.{RECORDER_CONSUMER}",
            "$JS.API.CONSUMER.NAMES.OUTBOUND",
            # one consumer for each new route; the filter is part of the subject
            "$JS.API.CONSUMER.CREATE.OUTBOUND.*.outbound.*.*",
            "outbound.*.*",
            "disposition.*.*",
            "body.api.*.*",
            # without a subject: the next one after a sequence number
            "$JS.API.DIRECT.GET.QUARANTINE",
            "$JS.API.DIRECT.GET.QUARANTINE.quarantine.*",
            "$JS.API.DIRECT.GET.ARCHIVE",
            "$JS.API.DIRECT.GET.BODIES.body.*.*.*",
            "$JS.API.DIRECT.GET.DISPOSITIONS.disposition.*.*",
            "$JS.API.STREAM.MSG.DELETE.QUARANTINE",
            "$JS.API.STREAM.PURGE.BODIES",
            "$KV.POLICY.*",
            "$KV.USERS.user.*",
            "$KV.SECRETS.route.*",
            "$JS.API.DIRECT.GET.KV_POLICY.$KV.POLICY.*",
            "$JS.API.DIRECT.GET.KV_USERS.$KV.USERS.user.*",
            "$JS.API.DIRECT.GET.KV_STATUS.$KV.STATUS.*.*",
        ),
        subscribe=("status.changed.*.*",),
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


MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024


def broker_config(address: BrokerAddress, passwords: Mapping[str, str], *, server_name: str = "postern") -> str:
    """A complete nats-server configuration: durable JetStream, one account and user for each service with its own permissions.

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
    """The block of a configuration with our accounts and users, for a broker whose other settings are not ours.

    Contains the passwords in the clear.
    """
    accounts = [
        _streams_account(passwords[PROVISIONER]),
        *(_service_account(service, passwords[service]) for service in SERVICES),
    ]
    return "\n".join(("accounts {", *accounts, "}", ""))


def _streams_account(password: str) -> str:
    exports: dict[tuple[str, str], list[str]] = {("service", _API_MARK): [account_of(service) for service in SERVICES]}
    for service in SERVICES:
        for kind, subject in _imported(service):
            exports.setdefault((kind, subject), []).append(account_of(service))
    lines = [
        f"      {{ {kind}: {json.dumps(subject)}, accounts: [{', '.join(accounts)}]"
        f"{_MANY_ANSWERS if subject.startswith(_PULLS) else ''} }}"
        for (kind, subject), accounts in exports.items()
    ]
    return "\n".join(
        (
            f"  {STREAMS_ACCOUNT} {{",
            "    jetstream: enabled",
            *_users(PROVISIONER, password),
            "    exports: [",
            *lines,
            "    ]",
            "  }",
        )
    )


def _service_account(service: str, password: str) -> str:
    permissions = permissions_of(service)
    imports = [(STREAMS_ACCOUNT, "service", _API_MARK)]
    imports += [(STREAMS_ACCOUNT, kind, subject) for kind, subject in _imported(service)]
    imports += [(account_of(who), "service", asked) for who, asked in _CONTROL.items() if asked in permissions.publish]
    lines = [
        f"      {{ {kind}: {{ account: {account}, subject: {json.dumps(subject)} }} }}" for account, kind, subject in imports
    ]
    exports = []
    if service in _CONTROL:
        exports.append(f"    exports: [ {{ service: {json.dumps(_CONTROL[service])}, accounts: [{account_of('api')}] }} ]")
    return "\n".join(
        (f"  {account_of(service)} {{", *_users(service, password), *exports, "    imports: [", *lines, "    ]", "  }")
    )


def _imported(service: str) -> list[tuple[str, str]]:
    """What a service's account takes from the account of the streams: (kind, subject)."""
    permissions = permissions_of(service)
    own = {*_CONTROL.values(), *_PEERS.values(), f"{inbox_prefix(service)}.>"}
    services = [("service", subject) for subject in permissions.publish if subject not in own]
    return services + [("stream", subject) for subject in permissions.subscribe if subject not in own]


def _users(user: str, password: str) -> tuple[str, ...]:
    permissions = permissions_of(user)
    answers = f", allow_responses: {{ max: 1, expires: {_ANSWER_WITHIN_S.get(user, 30)}s }}" if permissions.answers else ""
    return (
        f"    users: [ {{ user: {json.dumps(user)}, password: {json.dumps(password)}, permissions: {{",
        f"      publish: {{ allow: {json.dumps(permissions.publish)} }}",
        f"      subscribe: {{ allow: {json.dumps(permissions.subscribe)} }}{answers}",
        "    } } ]",
    )
