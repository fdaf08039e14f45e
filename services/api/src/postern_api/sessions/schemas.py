"""Live sessions at the HTTP edge."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from postern_api.fields import Body, examples
from postern_core.sessions import SessionState


class SessionView(Body):
    """One session that is open now."""

    id: str
    gate: str
    instance: str = Field(description="The replica that has it.")
    client: str
    server: str = Field(description="Address and port of the gate.")
    host: str = Field(description="What the client called itself; empty before HELO or EHLO.")
    tls: str = Field(description="Protocol and cipher; empty without TLS.")
    user: str
    state: SessionState
    connected_at: datetime
    age_s: float
    idle_s: float = Field(description="Since the last command, or the last kilobytes of data.")
    received_bytes: int
    sent_bytes: int
    commands: int
    errors: int
    messages: int = Field(description="Accepted.")
    recipients: int = Field(description="Of those.")


class GateReplicaView(Body):
    """One replica that was asked."""

    gate: str
    instance: str
    answered: bool = Field(description="false: what it has is not known, and nothing was ended there.")
    sessions: int | None = Field(description="That were asked for, or ended; null when it did not answer.")


class SessionsView(Body):
    """By id: the oldest first. For the next page, send `next` as `after`."""

    model_config = examples(
        {
            "sessions": [
                {
                    "id": "s-01j9zq3v5k7wexamp1e0000000",
                    "gate": "anon",
                    "instance": "ingress-anon-1",
                    "client": "192.0.2.7",
                    "server": "10.0.0.5:2525",
                    "host": "mx.sender.example",
                    "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
                    "user": "",
                    "state": "data",
                    "connected_at": "2026-03-01T09:30:00Z",
                    "age_s": 12.5,
                    "idle_s": 0.2,
                    "received_bytes": 48213,
                    "sent_bytes": 312,
                    "commands": 5,
                    "errors": 0,
                    "messages": 0,
                    "recipients": 0,
                }
            ],
            "total": 1,
            "next": "",
            "replicas": [{"gate": "anon", "instance": "ingress-anon-1", "answered": True, "sessions": 1}],
        }
    )

    sessions: list[SessionView]
    total: int = Field(description="Of all replicas that answered, whatever the page.")
    next: str = Field(description="Empty when this is the last page.")
    replicas: list[GateReplicaView]


class SessionsEndedView(Body):
    """What was ended, and where."""

    model_config = examples(
        {
            "ended": 3,
            "replicas": [
                {"gate": "anon", "instance": "ingress-anon-1", "answered": True, "sessions": 3},
                {"gate": "anon", "instance": "ingress-anon-2", "answered": False, "sessions": None},
            ],
        }
    )

    ended: int
    replicas: list[GateReplicaView]
