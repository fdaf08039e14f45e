"""Queue ids: what our 250 tells the client, and what every log line, event and trace repeats. And ids of sessions, made in the same way.

A queue id is a UUIDv7 (RFC 9562 section 5.7) written as 26 characters of Crockford's base32 in lower case: it sorts by
the time of acceptance, reads well aloud and fits a NATS subject token.
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from typing import NewType

QueueId = NewType("QueueId", str)
SessionId = NewType(
    "SessionId", str
)  # `s-` and what would be a queue id: unique over all replicas, sorts by the time of connecting

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_AS_BASE_32 = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")  # the digits of int()
_TIME_DIGITS = 10  # 50 bits: two that are always 0, and the 48 of the milliseconds
_SESSION = "s-"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PATTERN = re.compile(r"[0-7][0-9abcdefghjkmnpqrstvwxyz]{25}")


def new_queue_id(now_ms: int | None = None) -> QueueId:
    """A fresh id for mail accepted at `now_ms` (milliseconds since the epoch; default: now)."""
    return _format(time.time_ns() // 1_000_000 if now_ms is None else now_ms, os.urandom(10))


def derived_queue_id(accepted: datetime, seed: bytes) -> QueueId:
    """The id of mail that we make ourselves, the same for the same `seed` (16 bytes or more of a digest).

    A repeated attempt to write the same NDR then gets the same id, and the copy is recognised.
    """
    if len(seed) < 16:
        raise ValueError("seed must have at least 16 bytes")
    return _format(int(accepted.timestamp() * 1000), seed[:10])


def new_session_id() -> SessionId:
    """A fresh id for a connection that comes now."""
    return SessionId(_SESSION + new_queue_id())


def connected_at(session: SessionId) -> datetime:
    """When the session began, to the millisecond. ValueError for what is no session id."""
    if not session.startswith(_SESSION):
        raise ValueError(f"{session!r} is not a session id")
    return accepted_at(QueueId(session.removeprefix(_SESSION)))


def _format(milliseconds: int, tail: bytes) -> QueueId:
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(tail)
    value = value & ~(0xF << 76) | 0x7 << 76  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant of RFC 9562
    return QueueId("".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)]))


def parse_queue_id(text: str) -> QueueId:
    """`text` as a queue id; ValueError when it is none."""
    accepted_at(QueueId(text))  # 48 bits of milliseconds reach beyond the year 9999
    return QueueId(text)


def accepted_at(queue_id: QueueId) -> datetime:
    """When the mail with this id was accepted, to the millisecond (it is the first 48 bits of the UUID). ValueError for what is no id."""
    if not _PATTERN.fullmatch(queue_id):
        raise ValueError(f"{queue_id!r} is not a queue id (26 characters of Crockford base32, lower case)")
    try:
        return _EPOCH + timedelta(milliseconds=int(queue_id[:_TIME_DIGITS].translate(_AS_BASE_32), 32))
    except OverflowError as error:
        raise ValueError(f"{queue_id!r} is not a queue id: its time is beyond the year 9999") from error
