"""Bodies over the inline limit: stored first, referred to by the envelope (claim check), in stream BODIES.

Each job owns its body: it moves with the job from INTAKE to OUTBOUND to DEFERRED or QUARANTINE, and whoever settles the job deletes it.
A body whose gate died before it published the envelope is an orphan; delivery's janitor finds those (docs/architecture.md).
Why not the client library's object store: docs/adr/0003.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog
import xxhash

from postern_core.bus.connection import Bus
from postern_core.bus.publishing import NoRoomError, SubjectTakenError
from postern_core.bus.topology import BODIES, body_subject
from postern_core.envelope import BodyRef, Envelope

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger()

CHUNK_BYTES: Final = 1024 * 1024
_HASHED_AT_ONCE_BYTES: Final = 16 * 1024 * 1024  # a millisecond or two, and a thread to do it in costs a fifth of one
_CHUNKS_AT_ONCE: Final = 16  # written; how many are read the connection decides
_INLINE_WHEN_FULL_BYTES: Final = 6 * 1024 * 1024  # of the 8 MiB that a payload may have; the rest is for its head


class BodyMissing(Exception):  # noqa: N818  (a state of the mail, not of the program)
    """A stored body is gone or damaged: the message must be held with an alarm, never sent on empty."""


class BodyStore:
    """Puts, gets and deletes stored bodies, and decides which bodies travel inline."""

    def __init__(self, bus: Bus, writer: str, inline_limit_bytes: int) -> None:
        """`writer` is the service: it may write below its own name only, so that none can touch another's bodies."""
        self._bus = bus
        self._writer = writer
        self.inline_limit_bytes = inline_limit_bytes
        self._writing = asyncio.Semaphore(_CHUNKS_AT_ONCE)

    async def stow(
        self,
        envelope: Envelope,
        name: str,
        body: bytes | bytearray | memoryview,
        *,
        head: bytes = b"",
        inline_when_full: bool = False,
    ) -> tuple[Envelope, bytes | bytearray | memoryview]:
        """The envelope to publish and the bytes to put behind it: `head` and `body` themselves when they are small, else none and a
        reference to the stored copy under `name` (the queue id, or the job id for a further copy). TransientError when it cannot be stored.

        `inline_when_full`: while BODIES has no room, larger ones go inline, too, up to what a payload takes. For jobs on their way to OUTBOUND,
        since they make room: BODIES can be full of nothing but mail that waits to be changed, and a changed copy needs a place beside it.
        """
        size_bytes = len(head) + len(body)
        if size_bytes > self.inline_limit_bytes:
            try:
                return msgspec.structs.replace(envelope, body=await self.put(name, body, head=head)), b""
            except NoRoomError as error:
                if not inline_when_full or size_bytes > _INLINE_WHEN_FULL_BYTES:
                    raise
                # chunks that were stored before stay for the janitor: an earlier run may have handed on a job that refers to them
                log.warning("body.sent_inline", id=envelope.id, size_bytes=size_bytes, reason=error.reason)
        envelope = envelope if envelope.body is None else msgspec.structs.replace(envelope, body=None)
        return envelope, head + body if head else body

    async def put(self, name: str, body: bytes | bytearray | memoryview, *, head: bytes = b"") -> BodyRef:
        """Store `head` and `body` as one, durably; all chunks are acknowledged when this returns.

        No second copy of a large body: a chunk is a view of it, but for what has a part of `head` in it.
        """
        view = memoryview(body)
        digest = await _hashed(xxhash.xxh3_128, head, view)
        full_name, size = f"{self._writer}.{name}", len(head) + len(view)
        starts = range(0, size, CHUNK_BYTES)
        await _all(self._put_chunk(full_name, k, head, view, start, digest) for k, start in enumerate(starts))
        return BodyRef(name=full_name, chunks=len(starts), size_bytes=size, xxh3=digest)

    async def _put_chunk(self, name: str, k: int, head: bytes, body: memoryview, start: int, digest: str) -> None:
        async with self._writing:
            behind = max(start - len(head), 0)
            front = head[start : start + CHUNK_BYTES]
            rest = body[behind : behind + CHUNK_BYTES - len(front)]
            chunk = b"".join((front, rest)) if front else rest
            await self._publish_chunk(name, k, chunk, digest)

    async def _publish_chunk(self, name: str, k: int, chunk: bytes | memoryview, digest: str) -> None:
        subject = body_subject(name, k)
        try:
            # the digest is in the id: another body never passes for a copy of this one
            await self._bus.publish(BODIES, subject, chunk, f"{name}:{k}:{digest[:16]}")
        except SubjectTakenError:
            # chunks cannot be overwritten (topology): one that an earlier run left behind may outlive the duplicate window
            stored = await self._bus.last(BODIES, subject)
            if stored is None or stored.data != chunk:
                raise

    async def load(self, envelope: Envelope, inline: memoryview) -> bytes | memoryview:
        """The whole body of a message. BodyMissing when a chunk is gone or the digest differs."""
        if envelope.body is None:
            return inline
        return await self.get(envelope.body)

    async def get(self, ref: BodyRef) -> bytes:
        """The stored body, verified."""
        stored = await _all(self._bus.last(BODIES, body_subject(ref.name, k)) for k in range(ref.chunks))
        body = b"".join(chunk.data for chunk in stored if chunk is not None)
        algorithm, expected = (xxhash.xxh3_128, ref.xxh3) if ref.xxh3 else (hashlib.sha256, ref.sha256)
        if len(body) != ref.size_bytes or await _hashed(algorithm, body) != expected:
            missing = [k for k, chunk in enumerate(stored) if chunk is None]
            raise BodyMissing(f"body {ref.name}: chunks {missing} missing" if missing else f"body {ref.name}: digest differs")
        return body

    async def delete(self, envelope: Envelope) -> None:
        """Delete the body that this envelope refers to, if it refers to one."""
        if envelope.body is not None:
            await self._bus.purge(BODIES, f"body.{envelope.body.name}.*")


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each returns; the first failure, which ends the others: nobody waits for them, and they would hold the body and the bus."""
    # in a task of its own: in Python 3.11.2 (Debian 12) a task in which a group has failed counts as cancelled for ever, and its next time-out ends it
    return await asyncio.create_task(_together(work), name="bodies")


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    try:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(each) for each in work]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in started]


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


async def _hashed(algorithm: Callable[[], _Hash], *pieces: bytes | memoryview) -> str:
    """Of all pieces as one. Off the loop where it takes as long as many small messages do."""
    if sum(map(len, pieces)) > _HASHED_AT_ONCE_BYTES:
        return await asyncio.to_thread(_digest, algorithm(), pieces)
    return _digest(algorithm(), pieces)


def _digest(digest: _Hash, pieces: Iterable[bytes | memoryview]) -> str:
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
