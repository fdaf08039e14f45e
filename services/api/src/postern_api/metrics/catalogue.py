"""What is exposed of what replicas count (postern_core.counters): a metric for each counter and gauge, with its help and its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from postern_core.counters import CounterName


@dataclass(frozen=True, slots=True)
class Metric:
    """`labels`: of the counter's own label, in order; two where it holds a route as well."""

    name: str
    about: str
    labels: tuple[str, ...] = ()


COUNTERS: Final[dict[CounterName, Metric]] = {
    CounterName.SESSIONS: Metric("postern_gate_sessions_total", "Sessions that a gate has begun."),
    CounterName.CONNECTIONS_REFUSED: Metric(
        "postern_gate_connections_refused_total",
        "Connections turned away before a session, by code of the reply (that of a TLS port is not heard).",
        ("code",),
    ),
    CounterName.TLS_SESSIONS: Metric("postern_gate_tls_sessions_total", "Sessions that came to TLS, by version.", ("version",)),
    CounterName.REFUSALS: Metric("postern_gate_refusals_total", "Replies 4yz and 5yz, by code.", ("code",)),
    CounterName.AUTHENTICATIONS: Metric(
        "postern_gate_authentications_total",
        "AUTH commands by outcome: succeeded, failed (535), unavailable (454), given-up.",
        ("outcome",),
    ),
    CounterName.OCTETS: Metric(
        "postern_gate_bytes_total",
        "Octets of sessions, received and sent: commands, replies and messages, without what TLS adds.",
        ("direction",),
    ),
    CounterName.ACCEPTED_MESSAGES: Metric("postern_gate_accepted_messages_total", "Messages answered with 250."),
    CounterName.ACCEPTED_RECIPIENTS: Metric("postern_gate_accepted_recipients_total", "Recipients of these."),
    CounterName.ACCEPTED_BYTES: Metric("postern_gate_accepted_message_bytes_total", "Octets of these, as they came."),
    CounterName.SCREENED: Metric("postern_screener_messages_total", "Messages screened, by decision.", ("decision",)),
    CounterName.SCREENED_BYTES: Metric("postern_screener_message_bytes_total", "Octets of these."),
    CounterName.SETTLED: Metric(
        "postern_delivery_recipients_total",
        "Recipients that came to their end in delivery, by disposition and route.",
        ("disposition", "route"),
    ),
    CounterName.SENT_MESSAGES: Metric(
        "postern_delivery_sent_messages_total", "Transactions in which a next hop took a message, by route.", ("route",)
    ),
    CounterName.SENT_BYTES: Metric("postern_delivery_sent_message_bytes_total", "Octets of these, by route.", ("route",)),
    CounterName.DEFERRALS: Metric("postern_delivery_deferrals_total", "Jobs made to wait, each time, by route.", ("route",)),
    CounterName.CONNECTION_ATTEMPTS: Metric(
        "postern_delivery_connection_attempts_total", "Connections to next hops begun, by route.", ("route",)
    ),
    CounterName.CONNECTION_FAILURES: Metric(
        "postern_delivery_connection_failures_total", "Transactions for which no next hop gave a session, by route.", ("route",)
    ),
}

SCREENING_S: Final = Metric("postern_screener_screening_seconds", "Time that a message's screening took.")

CONNECTIONS: Final = Metric("postern_delivery_connections", "Connections to next hops that stand, by route.", ("route",))
RETRY_QUEUE: Final = Metric(
    "postern_delivery_queue_jobs", "Jobs in the retry queue, of all replicas together, by state and route.", ("state", "route")
)
