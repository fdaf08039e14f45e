"""Streams, consumers and buckets: their names, subjects and settings. Documented in docs/reference/bus.md.

Only `provision` creates any of this; services have no permission to. Mail streams refuse when full (`discard: new`), never age
(`max_age: 0`), and their consumers never give up (`max_deliver: -1`): a message leaves by being handed on, or it stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from postern_core.broker.names import RECORDER_CONSUMER, SCREENER_CONSUMER
from postern_core.envelope import Gate
from postern_core.ids import QueueId

INTAKE = "INTAKE"
OUTBOUND = "OUTBOUND"
DEFERRED = "DEFERRED"
QUARANTINE = "QUARANTINE"
BADMAIL = "BADMAIL"
BODIES = "BODIES"
DISPOSITIONS = "DISPOSITIONS"
EVENTS = "EVENTS"
ARCHIVE = "ARCHIVE"
KV_POLICY = "POLICY"
KV_USERS = "USERS"
KV_SECRETS = "SECRETS"
KV_STATUS = "STATUS"

_ROUTE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
GIB = 1024**3
MIB = 1024**2


def intake_subject(gate: Gate, token: str) -> str:
    """`token` is a queue id, or those of a batch (`postern_core.batch`)."""
    return f"intake.{gate.value}.{token}"


def outbound_subject(route: str, token: str) -> str:
    """`token` is a queue id, or those of a batch."""
    return f"outbound.{route}.{token}"


def deferred_subject(job_id: str) -> str:
    return f"deferred.{job_id}"


def quarantine_subject(queue_id: QueueId) -> str:
    return f"quarantine.{queue_id}"


def badmail_subject(job_id: str) -> str:
    return f"badmail.{job_id}"


def disposition_subject(queue_id: QueueId, n: int) -> str:
    return f"disposition.{queue_id}.{n}"


def dispositions_subject(batch: str, count: int, digest: str) -> str:
    """Of `count` dispositions in one message, told apart by `digest`, under the key of the batch in which their messages came."""
    return f"disposition.{batch}.{count}-{digest}"


def archive_subject(queue_id: QueueId) -> str:
    """Of an entry of several messages: the id of the first."""
    return f"archive.{queue_id}"


def event_subject(service: str, kind: str) -> str:
    return f"event.{service}.{kind}"


def body_subject(name: str, chunk: int) -> str:
    """`name` is `<writer>.<id>`."""
    return f"body.{name}.{chunk}"


def delivery_consumer(route: str) -> str:
    """Name of the durable consumer of OUTBOUND that feeds one route, so that a slow route holds up no other."""
    return f"delivery-{route}"


def is_route_name(name: str) -> bool:
    return _ROUTE.fullmatch(name) is not None


def checked_route_name(name: str) -> str:
    """`name` when it may name a route: it becomes a subject token. ValueError otherwise."""
    if not is_route_name(name):
        raise ValueError(f"{name!r} cannot name a route: use 1 to 32 of a-z, 0-9 and '-', no '-' at either end")
    return name


@dataclass(frozen=True, slots=True)
class BusLimits:
    """Sizes and times of the bus. The sum of all `*_bytes` must fit the broker's store with a reserve."""

    intake_bytes: int = 4 * GIB
    outbound_bytes: int = 4 * GIB
    deferred_bytes: int = 8 * GIB
    quarantine_bytes: int = 4 * GIB
    badmail_bytes: int = 1 * GIB
    bodies_bytes: int = 16 * GIB
    dispositions_bytes: int = 4 * GIB
    events_bytes: int = 1 * GIB
    archive_bytes: int = 2 * GIB
    dispositions_age: timedelta = timedelta(days=7)
    events_age: timedelta = timedelta(days=2)
    archive_age: timedelta = timedelta(days=2)
    duplicate_window: timedelta = timedelta(minutes=30)
    screening_ack_wait: timedelta = timedelta(seconds=30)
    delivery_ack_wait: timedelta = timedelta(seconds=30)
    recorder_ack_wait: timedelta = timedelta(seconds=30)
    replicas: int = 1

    @property
    def total_bytes(self) -> int:
        """What all streams together may grow to."""
        return sum(getattr(self, name) for name in self._sizes())

    def scaled(self, factor: float) -> BusLimits:
        """The same with every size multiplied by `factor`, and never 0, which the broker takes for no limit at all."""
        sizes: dict[str, Any] = {name: max(int(getattr(self, name) * factor), 1) for name in self._sizes()}
        return replace(self, **sizes)

    def _sizes(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self) if field.name.endswith("_bytes"))


def streams(limits: BusLimits) -> tuple[StreamConfig, ...]:
    """All streams, buckets included, in the order of creation."""
    window = limits.duplicate_window.total_seconds()

    def mail(name: str, subjects: str, max_bytes: int, retention: RetentionPolicy, **more: object) -> StreamConfig:
        settings: dict[str, object] = {
            "max_age": 0,
            "discard": DiscardPolicy.NEW,
            "deny_purge": True,
            "allow_direct": True,
            "duplicate_window": window,
        } | more
        return StreamConfig(
            name=name,
            subjects=[subjects],
            retention=retention,
            max_bytes=max_bytes,
            storage=StorageType.FILE,
            num_replicas=limits.replicas,
            **settings,  # type: ignore[arg-type]
        )

    def bucket(name: str, watched_as: str = "", *, history: int = 5, max_age: float = 0) -> StreamConfig:
        # `republish` tells watchers of a change by plain publish: no ephemeral consumer that could die with its server.
        # No roll-up: by a header of its own message, whoever may write one key could delete all the others.
        return StreamConfig(
            name=f"KV_{name}",
            subjects=[f"$KV.{name}.>"],
            max_msgs_per_subject=history,
            max_age=max_age,
            storage=StorageType.FILE,
            num_replicas=limits.replicas,
            discard=DiscardPolicy.NEW,
            deny_delete=True,
            deny_purge=True,
            allow_rollup_hdrs=False,
            allow_direct=True,
            republish=RePublish(src=f"$KV.{name}.>", dest=f"{watched_as}.>") if watched_as else None,
        )

    queue, keep = RetentionPolicy.WORK_QUEUE, RetentionPolicy.LIMITS
    return (
        mail(INTAKE, "intake.*.*", limits.intake_bytes, queue, deny_delete=True),
        mail(OUTBOUND, "outbound.*.*", limits.outbound_bytes, queue, deny_delete=True),
        mail(DEFERRED, "deferred.*", limits.deferred_bytes, keep, max_msgs_per_subject=1),
        mail(QUARANTINE, "quarantine.*", limits.quarantine_bytes, keep, max_msgs_per_subject=1),
        mail(BADMAIL, "badmail.*", limits.badmail_bytes, keep, max_msgs_per_subject=1),
        mail(
            BODIES,
            "body.*.*.*",
            limits.bodies_bytes,
            keep,
            max_msgs_per_subject=1,
            discard_new_per_subject=True,  # a stored body cannot be overwritten
            deny_purge=False,
        ),
        mail(
            DISPOSITIONS,
            "disposition.*.*",
            limits.dispositions_bytes,
            keep,
            max_age=limits.dispositions_age.total_seconds(),
            deny_delete=True,
        ),
        StreamConfig(
            name=EVENTS,
            subjects=["event.*.*"],
            retention=keep,
            max_bytes=limits.events_bytes,
            max_age=limits.events_age.total_seconds(),
            discard=DiscardPolicy.OLD,  # told, not promised
            storage=StorageType.FILE,
            num_replicas=limits.replicas,
            deny_delete=True,
            deny_purge=True,
        ),
        StreamConfig(
            name=ARCHIVE,
            subjects=["archive.*"],
            retention=keep,
            max_bytes=limits.archive_bytes,
            max_age=limits.archive_age.total_seconds(),
            discard=DiscardPolicy.OLD,  # copies, of mail that went its way
            storage=StorageType.FILE,
            num_replicas=limits.replicas,
            deny_delete=True,
            deny_purge=True,
            allow_direct=True,
        ),
        bucket(KV_POLICY, "policy.changed"),
        bucket(KV_USERS),  # read when they are needed, told to nobody
        bucket(KV_SECRETS),
        # on disk like all others: a stream in memory is gone after a restart of the broker, not only empty
        bucket(KV_STATUS, "status.changed", history=1, max_age=60),
    )


def consumers(limits: BusLimits) -> tuple[tuple[str, ConsumerConfig], ...]:
    """The fixed consumers as (stream, config). One consumer for each route comes on top: `route_consumer`."""
    return (
        (INTAKE, _durable(SCREENER_CONSUMER, "intake.*.*", limits.screening_ack_wait, limits)),
        (DISPOSITIONS, _durable(RECORDER_CONSUMER, "disposition.*.*", limits.recorder_ack_wait, limits)),
        (EVENTS, _durable(RECORDER_CONSUMER, "event.*.*", limits.recorder_ack_wait, limits)),
    )


def route_consumer(route: str, limits: BusLimits) -> ConsumerConfig:
    """The consumer of OUTBOUND for `route`: created once by the control step, never deleted while it may hold mail."""
    return _durable(delivery_consumer(checked_route_name(route)), f"outbound.{route}.*", limits.delivery_ack_wait, limits)


def _durable(name: str, filter_subject: str, ack_wait: timedelta, limits: BusLimits) -> ConsumerConfig:
    return ConsumerConfig(
        name=name,
        durable_name=name,
        filter_subject=filter_subject,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=ack_wait.total_seconds(),
        max_deliver=-1,
        max_ack_pending=10_000,
        num_replicas=limits.replicas,
    )
