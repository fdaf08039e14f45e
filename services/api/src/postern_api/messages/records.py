"""Rows of the trace as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One accepted message. What only its `accepted` event tells is None when that event got lost."""

    id: str
    gate: str
    accepted_at: datetime
    reverse_path: str | None
    recipients_total: int | None
    size_bytes: int | None
    client: str | None
    final: int

    @property
    def is_open(self) -> bool:
        return self.final < (self.recipients_total if self.recipients_total is not None else 1)

    @classmethod
    def of(cls, row: Row[Any]) -> MessageRow:
        return cls(
            row.id, row.gate, row.accepted_at, row.reverse_path, row.recipients_total, row.size_bytes, row.client, row.final
        )


@dataclass(frozen=True, slots=True)
class EventRow:
    """One step, or one disposition of the past."""

    kind: str
    at: datetime
    service: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DispositionRow:
    """The disposition of a recipient that counts."""

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
    successor_id: str

    @classmethod
    def of(cls, row: Row[Any]) -> DispositionRow:
        return cls(
            n=row.n,
            recipient=row.recipient,
            kind=row.kind,
            is_final=row.standing % 2 == 1,
            generation=row.generation,
            gate=row.gate,
            at=row.at,
            recipients_total=row.recipients_total,
            route=row.route,
            next_hop=row.next_hop,
            reply=row.reply,
            detail=row.detail,
            successor_id=row.successor_id,
        )


@dataclass(frozen=True, slots=True)
class Trace:
    """All that the database knows of one message."""

    message: MessageRow | None
    events: list[EventRow]
    history: list[EventRow]
    dispositions: list[DispositionRow]
