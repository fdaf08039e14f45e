"""Trace events: what happened to a message on its way, for the api's trace (stream EVENTS, `event.<service>.<kind>`).

Events are told, not promised: they travel in batches, after the fact, and a crash may lose the last few. What must not be lost
is in DISPOSITIONS.
"""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec

from postern_core.contract import Version, written
from postern_core.ids import QueueId
from postern_core.verdict import Verdict


class EventKind(enum.StrEnum):
    """The closed list of steps in a message's trace."""

    ACCEPTED = "accepted"  # a gate said 250
    SCREENED = "screened"  # the verdict, with rule, part and offset
    ATTEMPTED = "attempted"  # one SMTP transaction with a next hop and how it ended
    DEFERRED = "deferred"  # waits: in the retry queue, or in INTAKE for an engine
    DELAY_NOTIFIED = "delay-notified"  # the sender was told that it takes longer
    NDR_QUEUED = "ndr-queued"
    RELEASED = "released"  # from quarantine, by an administrator


class TraceEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of one message. `fields` holds small strings and numbers, never content or secrets. `verdict` comes with `screened`, when anything
    in the message matched: where, with short excerpts unless the policy forbids that."""

    id: QueueId
    kind: EventKind
    at: datetime
    service: str
    fields: dict[str, str | int | float | bool] = {}
    verdict: Verdict | None = None


class EventBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Payload on EVENTS (JSON, no frame)."""

    version: Version = msgspec.field(default_factory=written)
    events: tuple[TraceEvent, ...]
