"""Several messages in one payload: what is handed over at the same moment shares one publish, one sync of the disk and one acknowledgement.

A batch is one entry of a work queue, and so one unit of hand-over: it is stored as a whole and let go as a whole, when each of its members has
been handed on. What becomes of a member is its own. Only mail with its body inline travels so; the body of any other is one
message's or one job's alone. Why: docs/adr/0009.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from postern_core.contract import T, decode
from postern_core.envelope import MAGIC, unframe
from postern_core.ids import QueueId

MOST_MEMBERS: Final = 16
MOST_OCTETS: Final = 256 * 1024  # of all heads and bodies; a message over half of it goes alone

_BATCH_MAGIC: Final = b"PSTB"
_PREFIX: Final = struct.Struct(">4sI")  # magic, number of members
_LENGTHS: Final = struct.Struct(">II")  # of a member's head and body
_JOINT: Final = "+"  # between queue ids in a subject; no id has one

Body = bytes | bytearray | memoryview


def batch_token(queue_ids: Iterable[QueueId]) -> str:
    """The subject token that names all members, so that a stream's subjects tell which mail is in it."""
    return _JOINT.join(queue_ids)


def queue_ids_in(token: str) -> list[str]:
    """What `batch_token` joined; of a message that travels alone, its one id."""
    return token.split(_JOINT)


def members_in(subject: str) -> int:
    """How many messages are in the entry of this subject."""
    return subject.count(_JOINT) + 1


def frame_batch(members: Sequence[tuple[bytes, Body]]) -> bytes:
    """Heads (JSON) with their bodies as one payload: magic, number, the lengths of each head and body in bytes (32 bits, big-endian), then each head and body."""
    lengths = (_LENGTHS.pack(len(head), len(body)) for head, body in members)
    contents = (piece for member in members for piece in member)
    return b"".join((_PREFIX.pack(_BATCH_MAGIC, len(members)), *lengths, *contents))


def unframe_all(payload: bytes, head_type: type[T]) -> list[tuple[T, memoryview]]:
    """Heads and bodies of a batch, or of one framed message. ValueError for anything else, and for a head of another version."""
    if payload[: len(MAGIC)] == MAGIC:
        return [unframe(payload, head_type)]
    if len(payload) < _PREFIX.size:
        raise ValueError("payload is shorter than its prefix")
    magic, count = _PREFIX.unpack_from(payload)
    at = _PREFIX.size + count * _LENGTHS.size
    if magic != _BATCH_MAGIC or not count or len(payload) < at:
        raise ValueError("payload is not framed as Postern frames it")
    view = memoryview(payload)
    members: list[tuple[T, memoryview]] = []
    for head_octets, body_octets in _LENGTHS.iter_unpack(view[_PREFIX.size : at]):
        body_at, end = at + head_octets, at + head_octets + body_octets
        if end > len(payload):
            raise ValueError("a batch is cut short")
        members.append((decode(view[at:body_at], head_type), view[body_at:end]))
        at = end
    if at != len(payload):
        raise ValueError("there is more behind the last member of a batch")
    return members
