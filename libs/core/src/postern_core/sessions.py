"""Requests that the api makes of the gates over the bus: which sessions are open, and end some. Request-reply on core NATS, JSON.

Subjects: `control.<service>.<verb>.<instance>`. Each replica is asked by itself, since only it knows its sessions: which replicas there are
the api knows from KV STATUS, and so it also knows which of them did not answer.
"""

from __future__ import annotations

import enum

import msgspec

from postern_core.envelope import Gate

GATE_SERVICES = {Gate.ANON: "ingress-anon", Gate.AUTH: "ingress-auth"}
GATE_TIMEOUT_S = 2.0
MOST_SESSIONS = 1000  # rows of one answer


class GateVerb(enum.StrEnum):
    """Verbs of `control.<service>.<verb>.<instance>`, with their request and answer types."""

    LIST = "sessions-list"  # SessionQuery → SessionPage
    END = "sessions-end"  # SessionSelection → SessionsEnded: 421 4.3.2, after the answer to a message that is being stored


class SessionState(enum.StrEnum):
    """Where a session is."""

    START = "start"  # no HELO or EHLO yet
    READY = "ready"  # between transactions
    MAIL = "mail"  # a reverse-path, no recipient
    RCPT = "rcpt"  # at least one recipient
    DATA = "data"  # message data is coming in
    STORING = "storing"  # a message came, and is not answered yet


class SessionQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which sessions, by their ids: the first are the oldest. `after` is the last id of the page before."""

    client: str = ""  # an address or a network; "": any
    after: str = ""
    limit: int = 100


class SessionRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One session as an administrator sees it."""

    id: str
    client: str
    state: SessionState
    age_s: float
    idle_s: float  # since the last command, or the last kilobytes of data
    server: str = ""  # our address and port
    host: str = ""  # what the client called itself
    tls: str = ""
    user: str = ""
    received_bytes: int = 0  # octets of everything, TLS apart
    sent_bytes: int = 0
    commands: int = 0
    errors: int = 0
    messages: int = 0  # accepted
    recipients: int = 0  # of those


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    """`total`: how many sessions the replica has that the query asks for, whatever the page."""

    rows: tuple[SessionRow, ...]
    total: int


class SessionSelection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One session by its `id`, those of a `client` (an address or a network), or all of them when nothing is set."""

    id: str = ""
    client: str = ""
    actor: str = ""  # who asked, for the log


class SessionsEnded(msgspec.Struct, frozen=True, kw_only=True):
    ended: int
