"""Edits: which octets of a message give way to which. Whoever changes mail makes some; applying them is the only thing that makes new bytes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Edit(msgspec.Struct, frozen=True, array_like=True):
    """Octets `start` to `end` of the message as received give way to `data`. With start = end it is put in there."""

    start: int
    end: int
    data: bytes


def apply(body: bytes | memoryview, edits: Sequence[Edit]) -> bytes:
    """`body` with all edits made; those at the same place in the order given. ValueError for edits that overlap or lie outside."""
    pieces: list[bytes | memoryview] = []
    view, done = memoryview(body), 0
    # what is put in at a place comes before what replaces the octets there
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        if not done <= edit.start <= edit.end <= len(view):
            raise ValueError(f"edit of octets {edit.start} to {edit.end}: they overlap another edit, or the message is shorter")
        pieces += (view[done : edit.start], edit.data)
        done = edit.end
    pieces.append(view[done:])
    return b"".join(pieces)
