"""Counters of a process: whole numbers that only grow until it ends, told with its status and read by the api (GET /api/v1/metrics).

Counting costs an addition in memory; nothing is sent for it but the status that is sent anyway. The names are a closed list, each with one
label or none; labels are codes, decisions and routes, never an address or an id.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from typing import Final

# upper bounds of a histogram's buckets, in seconds
BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0)
BEYOND: Final = "+Inf"
_LABELS: Final = (*map(str, BUCKETS_S), BEYOND)
SUM: Final = "sum"
BY_ROUTE: Final = "|"  # between a label and the route behind it


class CounterName(enum.StrEnum):
    """What is counted, and by what."""

    # gates
    SESSIONS = "sessions"
    CONNECTIONS_REFUSED = "connections-refused"  # by code of the reply
    TLS_SESSIONS = "tls-sessions"  # by version
    REFUSALS = "refusals"  # replies 4yz and 5yz, by code
    AUTHENTICATIONS = "authentications"  # by outcome
    OCTETS = "octets"  # by direction
    ACCEPTED_MESSAGES = "accepted-messages"
    ACCEPTED_RECIPIENTS = "accepted-recipients"
    ACCEPTED_BYTES = "accepted-bytes"
    # screener
    SCREENED = "screened"  # by decision
    SCREENED_BYTES = "screened-bytes"
    SCREENING_S = "screening-s"  # a histogram: by bucket, and SUM
    # delivery
    SETTLED = "settled"  # recipients, by disposition and route
    SENT_MESSAGES = "sent-messages"  # by route
    SENT_BYTES = "sent-bytes"  # by route
    DEFERRALS = "deferrals"  # by route
    CONNECTION_ATTEMPTS = "connection-attempts"  # by route
    CONNECTION_FAILURES = "connection-failures"  # by route


class GaugeName(enum.StrEnum):
    """What goes up and down."""

    CONNECTIONS = "connections"  # of delivery, by route
    RETRY_QUEUE = "retry-queue"  # jobs, by state and route; of all replicas together


Labelled = dict[str, float]  # by label, "" where there is none


class Counters:
    """See the module."""

    def __init__(self) -> None:
        self._values: dict[str, Labelled] = {}

    def add(self, name: CounterName, label: str = "", by: float = 1) -> None:
        """Count `by` more."""
        labelled = self._values.get(name)
        if labelled is None:
            labelled = self._values[name] = {}
        labelled[label] = labelled.get(label, 0) + by

    def observe(self, name: CounterName, seconds: float) -> None:
        """Count one into a histogram."""
        self.add(name, _LABELS[bisect_left(BUCKETS_S, seconds)])
        self.add(name, SUM, seconds)

    def told(self) -> dict[str, Labelled]:
        """All of them, as they stand; a copy."""
        return {str(name): dict(labelled) for name, labelled in self._values.items()}
