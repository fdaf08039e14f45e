"""A message with its verdict, and what it is split into where rules differ between recipients. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from postern_core.disposition import Disposition
from postern_core.envelope import Envelope, Gate
from postern_core.ids import QueueId, derived_queue_id
from postern_screener.screening import Screened


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A message and what is to be done with it. `body` is the whole message as received, wherever it lies."""

    envelope: Envelope
    body: bytes | memoryview
    screened: Screened
    came_in_at: Gate | None = None  # of a share: the gate of the whole
    known: Mapping[int, Disposition] = field(default_factory=dict)  # what earlier runs wrote down, by `Recipient.n`


def shares(judged: Judged) -> list[Judged]:
    """What becomes of a message whose recipients have different verdicts: a message for each share of them. Their ids are the same for each
    attempt to make them, and others when other recipients belong together."""
    envelope, found = judged.envelope, []
    for outcome in judged.screened.outcomes:
        wanted = frozenset(outcome.recipients)
        recipients = tuple(recipient for recipient in envelope.recipients if recipient.n in wanted)
        own = msgspec.structs.replace(
            envelope, id=share_id(envelope, wanted), gate=Gate.INTERNAL, recipients=recipients, body=None
        )
        found.append(
            Judged(
                own,
                judged.body,
                Screened(verdict=outcome.verdict, subject=judged.screened.subject, edits=outcome.edits),
                came_in_at=envelope.gate,
            )
        )
    return found


def share_id(envelope: Envelope, recipients: Iterable[int]) -> QueueId:
    """The queue id of the share of these recipients, by `Recipient.n`."""
    digest = hashlib.sha256(f"split{envelope.id}{sorted(recipients)}".encode()).digest()
    return derived_queue_id(envelope.accepted_at, digest)
