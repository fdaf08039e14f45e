"""The trace at the HTTP edge."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field, JsonValue

from postern_api.fields import Body, examples

_END: dict[str, JsonValue] = {
    "n": 0,
    "recipient": "alice@example.com",
    "kind": "delivered",
    "is_final": True,
    "generation": 0,
    "gate": "anon",
    "at": "2026-03-01T09:30:01Z",
    "recipients_total": 1,
    "route": "main",
    "next_hop": "mail.example.com:25",
    "reply": "250 2.0.0 Ok: queued as 4XyZ",
    "detail": "",
    "successor_id": "",
}
_MESSAGE: dict[str, JsonValue] = {
    "id": "01j9zq3v5k7wexamp1e0000000",
    "gate": "anon",
    "accepted_at": "2026-03-01T09:30:00Z",
    "reverse_path": "x@sender.example",
    "recipients_total": 1,
    "size_bytes": 48213,
    "client": "192.0.2.7",
    "final": 1,
    "open": False,
    "dispositions": [_END],
}


class EventView(Body):
    """One step."""

    kind: str = Field(examples=["screened"])
    at: datetime
    service: str
    fields: dict[str, Any]


class DispositionView(Body):
    """The end of a recipient, as far as it has come; `released` is on its way again."""

    n: int
    recipient: str
    kind: str
    is_final: bool
    generation: int
    gate: str
    at: datetime
    recipients_total: int
    route: str
    next_hop: str
    reply: str
    detail: str
    successor_id: str = Field(description="Queue id of the NDR or of the forwarded copy, where one was made.")


class MessageView(Body):
    """One accepted message. A field is null when the event that tells it got lost."""

    id: str
    gate: str = Field(description="Empty when the acceptance got lost and no recipient has come to an end yet.")
    accepted_at: datetime
    reverse_path: str | None
    recipients_total: int | None
    size_bytes: int | None
    client: str | None
    final: int = Field(description="Recipients that have come to an end.")
    open: bool = Field(description="Whether any have not.")
    dispositions: list[DispositionView]


class MessagePage(Body):
    """Newest first. For the next page, send `next` as `after`."""

    model_config = examples({"rows": [_MESSAGE], "next": ""})

    rows: list[MessageView]
    next: str = Field(description="Empty when this is the last page.")


class PlaceView(Body):
    """A stream that holds the message now."""

    stream: str
    subject: str


class TraceView(Body):
    """Everything that is known of one message."""

    model_config = examples(
        {
            "id": "01j9zq3v5k7wexamp1e0000000",
            "message": _MESSAGE,
            "events": [{"kind": "screened", "at": "2026-03-01T09:30:00Z", "service": "screener", "fields": {"decision": "pass"}}],
            "dispositions": [_END],
            "history": [],
            "places": [],
        }
    )

    id: str
    message: MessageView | None = Field(description="null when nothing was told of it yet.")
    events: list[EventView]
    dispositions: list[DispositionView]
    history: list[EventView] = Field(description="Every disposition that there ever was, in the order of time.")
    places: list[PlaceView] | None = Field(description="Where it is now; empty: nowhere any more; null: the bus does not answer.")
