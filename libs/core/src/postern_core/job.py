"""A delivery job: one message for one route. Head of OUTBOUND and DEFERRED entries."""

from __future__ import annotations

import msgspec

from postern_core.contract import Version, written
from postern_core.envelope import Envelope, Recipient
from postern_core.ids import QueueId


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One (message, route). `recipients` are those of `envelope` that take this route, or what a rule put in their place.

    The body that belongs to a job is its own: when a message is split over several routes, each job that does not carry
    its body inline has its own stored copy (`envelope.body`), so that whoever settles a job may let go of its body.
    """

    version: Version = msgspec.field(default_factory=written)
    route: str
    envelope: Envelope
    recipients: tuple[Recipient, ...]
    generation: int = 0  # 0 as screened; +1 for each release from quarantine (a release is a new hand-over)
    maybe_duplicate: bool = False  # made from a redelivered input: look in DISPOSITIONS before the first attempt
    batch: str = ""  # where it came in a batch, or has several recipients: the key under which they are written down as delivered
    is_dsn: bool = False  # made by Postern itself; an undeliverable one goes to badmail

    @property
    def queue_id(self) -> QueueId:
        return self.envelope.id

    @property
    def id(self) -> str:
        """Names the job for ever: `<queue-id>-<route>-<generation>`; a subject token (DEFERRED: `deferred.<job-id>`)."""
        return f"{self.envelope.id}-{self.route}-{self.generation}"


class Badmail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Head of a BADMAIL entry, subject `badmail.<job-id>`: what could neither be delivered nor returned."""

    version: Version = msgspec.field(default_factory=written)
    job: Job
    recipients: tuple[Recipient, ...]  # those for whom there is no way left
    reason: str  # one sentence for an administrator
    last_reply: str = ""
