"""Dispositions: the end of each recipient of each accepted message (stream DISPOSITIONS).

A disposition is at `disposition.<queue-id>.<n>`; several together are at `disposition.<batch>.<count>-<digest>` (`bus.dispositions`). Written, and confirmed by the broker, before the job that led to it is let go. The ledger reads this stream.
"""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec

from postern_core.contract import Version, decode, written
from postern_core.envelope import Gate
from postern_core.ids import QueueId


class DispositionKind(enum.StrEnum):
    """How a recipient ended."""

    DELIVERED = "delivered"  # the next hop took responsibility
    BOUNCED = "bounced"  # refused for good; an NDR was queued
    EXPIRED = "expired"  # not delivered in time; an NDR was queued
    DELETED = "deleted"  # by rule, or by an administrator
    HELD = "held"  # in quarantine
    FORWARDED = "forwarded"  # sent to another address instead, by rule or by an administrator
    SPLIT = "split"  # held apart from other recipients, under a queue id of its own, because rules differ between them
    BADMAIL = "badmail"  # neither delivered nor returned; kept in BADMAIL
    RELEASED = "released"  # no end: a held recipient is on its way again under the next generation

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens unless an administrator acts."""
        return self is not DispositionKind.RELEASED

    def settles(self, generation: int, wanted: int) -> bool:
        """Whether a recipient's newest disposition, of this kind and `generation`, leaves nothing to do for a job of generation `wanted`."""
        return self.is_final and generation >= wanted


class Disposition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The end of recipient `n`. The one with the highest (generation, is_final) counts."""

    version: Version = msgspec.field(default_factory=written)
    id: QueueId
    n: int  # Recipient.n
    recipients_total: int  # of the envelope, so that a reader knows when it has seen all of them
    kind: DispositionKind
    gate: Gate
    accepted_at: datetime
    at: datetime
    recipient: str
    generation: int = 0
    route: str = ""
    next_hop: str = ""  # host:port that answered
    reply: str = ""  # its last reply, at most 500 characters
    detail: str = ""  # rule, operator or reason, one sentence
    successor_id: str = ""  # queue id of the NDR, of the forwarded copy, or of what was split off, where one was made


class DispositionBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Several `delivered` that were known at the same moment: of one message, or of messages that came in one batch."""

    version: Version = msgspec.field(default_factory=written)
    dispositions: tuple[Disposition, ...]


def is_of_several(subject: str) -> bool:
    """Whether an entry of DISPOSITIONS holds a `DispositionBatch`."""
    return "-" in subject.rpartition(".")[2]


def read_dispositions(subject: str, data: bytes) -> tuple[Disposition, ...]:
    """What an entry of DISPOSITIONS holds. ValueError when this program cannot read it."""
    return decode(data, DispositionBatch).dispositions if is_of_several(subject) else (decode(data, Disposition),)
