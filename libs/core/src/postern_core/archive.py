"""Copies of mail that was screened, kept for a while where the policy says so (stream ARCHIVE), so that rules can be rehearsed on real traffic.

An entry is a batch (`postern_core.batch`) of messages with their bodies inline, whole as they were screened. Copies are no part of any promise: they are
written after the mail was handed on, and what does not fit, or comes while the bus is busy, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from postern_core.batch import frame_batch, unframe_all
from postern_core.contract import Version, written
from postern_core.envelope import Envelope
from postern_core.verdict import Verdict

MOST_ARCHIVED_OCTETS: Final = (
    6 * 1024 * 1024
)  # of one message: with a policy, it has to fit one request to try it (postern_core.trial)


class ArchivedMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Head of a message in an entry of ARCHIVE: what it was, and what became of it."""

    version: Version = msgspec.field(default_factory=written)
    envelope: Envelope
    verdict: Verdict
    subject: str = ""


def frame_archived(members: Sequence[tuple[ArchivedMessage, bytes | memoryview]]) -> bytes:
    """An entry."""
    return frame_batch([(msgspec.json.encode(head), body) for head, body in members])


def unframe_archived(payload: bytes) -> list[tuple[ArchivedMessage, memoryview]]:
    """ValueError for what is no entry."""
    return unframe_all(payload, ArchivedMessage)
