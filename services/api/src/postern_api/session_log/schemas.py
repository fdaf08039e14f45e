"""The session log at the HTTP edge."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from postern_api.fields import Body, examples


class SessionLogRow(Body):
    """One command with its reply, or a whole session."""

    at: datetime = Field(description="When the command was answered, or the session over.")
    session: str
    n: int = Field(description="Of the command in its session; 0: the whole session.")
    gate: str
    instance: str
    client: str
    server: str = Field(description="Address and port of the gate.")
    host: str = Field(description="What the client called itself.")
    user: str
    tls: str
    verb: str = Field(description="`SESSION`: a whole session. `UNKNOWN`: no command, whose text is not kept.")
    argument: str = Field(
        description="Of DATA that was accepted: the queue id. Of a session: how it ended. Of AUTH: the mechanism."
    )
    code: int = Field(description="Of the reply; 0: none.")
    received_bytes: int
    sent_bytes: int
    taken_ms: int
    commands: int = Field(description="This and the counts below: of a whole session.")
    errors: int
    messages: int = Field(description="Accepted.")
    recipients: int


class SessionLogPage(Body):
    """Oldest first. For the next page, send `next` as `after`."""

    model_config = examples(
        {
            "rows": [
                {
                    "at": "2026-03-01T09:30:00.250Z",
                    "session": "s-01j9zq3v5k7wexamp1e0000000",
                    "n": 0,
                    "gate": "anon",
                    "instance": "ingress-anon-1",
                    "client": "192.0.2.7",
                    "server": "10.0.0.5:2525",
                    "host": "mx.sender.example",
                    "user": "",
                    "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
                    "verb": "SESSION",
                    "argument": "closing the connection",
                    "code": 0,
                    "received_bytes": 48502,
                    "sent_bytes": 412,
                    "taken_ms": 187,
                    "commands": 5,
                    "errors": 0,
                    "messages": 1,
                    "recipients": 1,
                }
            ],
            "next": "",
        }
    )

    rows: list[SessionLogRow]
    next: str = Field(description="Empty when this is the last page.")
