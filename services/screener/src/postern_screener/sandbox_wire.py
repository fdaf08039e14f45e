"""What the sandbox and its parent say to each other: frames of a kind (one byte), a length (four, big-endian) and a payload."""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio.subprocess import Process

HEADER: Final = struct.Struct(">cI")
SECONDS: Final = struct.Struct(">d")
LENGTH: Final = struct.Struct(">I")


class Kind(enum.Enum):
    """Kinds of frame."""

    POLICY = b"P"  # to the child: an encoded screening section; answered by READY or REFUSED
    MESSAGE = b"M"  # to the child: seconds it may take (SECONDS), what engines said (LENGTH, JSON), then envelope and body as `frame` joins them
    READY = b"R"  # the policy is compiled
    REFUSED = b"F"  # the policy does not compile, or the inspection raised: the reason, as text
    SCREENED = b"S"  # the outcome, JSON


def pack(kind: Kind, *pieces: bytes) -> bytes:
    """One frame."""
    payload = b"".join(pieces)
    return HEADER.pack(kind.value, len(payload)) + payload


async def exchange(child: Process, request: bytes) -> tuple[Kind, bytes]:
    """One request, one answer. EOFError when the child is gone."""
    assert child.stdin is not None and child.stdout is not None  # noqa: PT018  (both are pipes)
    child.stdin.write(request)
    await child.stdin.drain()
    kind, length = HEADER.unpack(await child.stdout.readexactly(HEADER.size))
    return Kind(kind), await child.stdout.readexactly(length)
