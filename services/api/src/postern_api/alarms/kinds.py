"""The alarms that there are, and what one says. docs/operate/alarms.md has a row for each kind."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

Figure = int | float | str | list[str]


class Kind(enum.StrEnum):
    """The closed list of alarms."""

    BROKER_SILENT = "broker_silent"  # nothing can be looked at
    BROKER_NOT_STORING = "broker_not_storing"  # it answers, and no more
    STREAM_UNREADABLE = "stream_unreadable"  # one stream does not answer, or is gone
    STREAM_FILLING = "stream_filling"
    STORE_FILLING = "store_filling"  # of one server, all streams together
    STREAM_DAMAGED = "stream_damaged"  # the broker could not read all of it from its disk
    STRANDED_MESSAGES = "stranded_messages"  # in a work queue, and before no consumer
    MAIL_STANDING = "mail_standing"  # the oldest of a work queue
    CONSUMER_MISSING = "consumer_missing"
    CONSUMER_UNEXPECTED = "consumer_unexpected"
    REPLICA_BEHIND = "replica_behind"  # a server that is away, or does not keep up
    REPLICAS_DIFFER = "replicas_differ"  # two servers' copies of a stream
    LEDGER_DISCREPANCIES = "ledger_discrepancies"
    POLICY_STALE = "policy_stale"  # of one replica
    ENGINE_DOWN = "engine_down"  # it does not answer the screener


class Severity(enum.StrEnum):
    """How soon."""

    WARNING = "warning"  # today
    CRITICAL = "critical"  # now: mail is lost, stands still, or soon will


Key = tuple[Kind, str]  # and what it is about: a stream, `<stream>/<consumer>`, a server, `<service>/<instance>`, or ""


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is not as it should be."""

    severity: Severity
    summary: str  # what it is
    advice: str  # what to do
    figures: dict[str, Figure] = field(default_factory=dict)
