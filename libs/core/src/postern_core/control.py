"""Requests that the api makes of delivery over the bus, and service status reports. Request-reply on core NATS, JSON.

Subjects: `control.delivery.<verb>` (queue group: any replica answers, the queue database is shared).
"""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec

from postern_core.policy.engines import OnFailure
from postern_core.verdict import Engine

CONTROL_TIMEOUT_S = 5.0


class DeliveryVerb(enum.StrEnum):
    """Verbs of `control.delivery.<verb>`, with their request and answer types."""

    QUEUE_LIST = "queue-list"  # QueueQuery → QueuePage
    QUEUE_GET = "queue-get"  # QueueAction → QueuePage (zero or more rows of that id)
    QUEUE_RETRY = "queue-retry"  # QueueAction → QueueChanged: due now
    QUEUE_DELETE = "queue-delete"  # QueueAction → QueueChanged: disposition `deleted`, or NDR and `bounced`
    QUEUE_HOLD = "queue-hold"  # QueueAction → QueueChanged: frozen until resumed
    QUEUE_RESUME = "queue-resume"  # QueueAction → QueueChanged
    BADMAIL_LIST = "badmail-list"  # QueueQuery → BadmailPage
    BADMAIL_DELETE = "badmail-delete"  # QueueAction → QueueChanged


class QueueState(enum.StrEnum):
    """State of a retry-queue row."""

    WAITING = "waiting"
    LEASED = "leased"  # an attempt is under way
    FROZEN = "frozen"  # by an administrator


class QueueQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which rows; `after` is the last job id of the page before."""

    route: str = ""
    after: str = ""
    limit: int = 100


class QueueRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One deferred job as an administrator sees it."""

    job_id: str
    queue_id: str
    route: str
    state: QueueState
    reverse_path: str
    recipients: tuple[str, ...]  # those still open
    attempts: int
    accepted_at: datetime
    next_attempt_at: datetime
    expires_at: datetime
    last_reply: str = ""
    size_bytes: int = 0


class QueuePage(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[QueueRow, ...]
    total: int


class QueueAction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job (`job_id`), all jobs of a message (`queue_id`), a whole route, or all of them when nothing is set."""

    job_id: str = ""
    queue_id: str = ""
    route: str = ""
    with_ndr: bool = False  # for delete: tell the sender
    actor: str = ""  # who asked, for the disposition


class QueueChanged(msgspec.Struct, frozen=True, kw_only=True):
    changed: int


class BadmailRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One dead letter as an administrator sees it."""

    job_id: str
    queue_id: str
    reverse_path: str
    recipients: tuple[str, ...]
    reason: str
    at: datetime
    last_reply: str = ""


class BadmailPage(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[BadmailRow, ...]
    total: int


class ControlError(msgspec.Struct, frozen=True, kw_only=True, tag_field="error", tag="control"):
    """Answer to a request that could not be carried out."""

    message: str


class CertificateStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A certificate of a gate's, as it is in use."""

    file: str
    names: tuple[str, ...] = ()
    not_after: datetime | None = None  # None: it is not in use, or could not be read
    problem: str = ""  # what is wrong with it, in a sentence; "" when nothing is


class EngineState(enum.StrEnum):
    """How an engine is, as a worker of the screener sees it."""

    UNKNOWN = "unknown"  # not asked yet
    OK = "ok"
    FAILING = "failing"  # the last question failed
    OPEN = "open"  # it failed so often that it is not asked for a while


TROUBLED = frozenset({EngineState.FAILING, EngineState.OPEN})  # it gives no answers


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An engine that is on, and what came of asking it since the worker started."""

    engine: Engine
    state: EngineState
    on_failure: OnFailure
    error: str = ""  # of the last failure, while it lasts
    asked: int = 0
    failed: int = 0
    seconds: float = 0.0  # spent waiting for its answers, all together


class UnboundAddress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a gate is to listen and does not."""

    address: str  # as in `ServiceStatus.listens`
    problem: str  # why, in the system's words


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a running instance says of itself every few seconds (KV STATUS, key `<service>.<instance>`)."""

    service: str
    instance: str
    started_at: datetime
    at: datetime
    ready: bool
    revision: int = 0  # of the policy it runs; 0: none yet
    policy_error: str = ""  # why the newest revision was refused, "" when it was not
    pid: int = 0
    in_flight: int = 0
    detail: str = ""
    listens: tuple[str, ...] = ()  # of a gate: host:port, and " (TLS)" behind it where TLS starts at once
    certificates: tuple[CertificateStatus, ...] = ()  # of a gate that has TLS; the default one first
    engines: tuple[EngineStatus, ...] = ()  # of a screener: those that are on
    counters: dict[str, dict[str, float]] = {}  # since it started (postern_core.counters)
    gauges: dict[str, dict[str, float]] = {}
    unbound: tuple[UnboundAddress, ...] = ()  # of a gate: where it is to listen and cannot; it tries again
