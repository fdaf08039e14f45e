"""Queues what Postern itself writes about a job: NDRs with their copy, delay notices, and notices of relaying for who asked for them.
Each is a message of its own on OUTBOUND.

Its queue id derives from the job and the recipients that it is about, so that a repeat is the same message and is recognised. It goes out
with a null reverse-path and is never answered by another notice: one that cannot be delivered becomes badmail.
Standards: RFC 3464 section 2 (null reverse-path), RFC 3461 section 4.1 (NOTIFY), RFC 5321 sections 4.5.5 and 6.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from postern_core.bus import BodyStore, Bus, EventSink
from postern_core.bus.topology import OUTBOUND, outbound_subject
from postern_core.envelope import BodyType, Client, Envelope, Gate, Recipient, frame
from postern_core.events import EventKind
from postern_core.ids import QueueId, derived_queue_id
from postern_core.job import Job
from postern_delivery.dsn import Action, Notice, build
from postern_delivery.outcome import Results
from postern_delivery.routing import RoutingTable

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_UNLESS_ASKED: Final = frozenset({"FAILURE", "DELAY"})


def may_be_answered(job: Job) -> bool:
    """Whether anybody may be told about this job: not about a notice, nor about mail with a null reverse-path."""
    return bool(job.envelope.reverse_path) and not job.is_dsn


def wants(recipient: Recipient, condition: str) -> bool:
    """Whether the sender wants to hear of `condition` for this recipient: "FAILURE" and "DELAY" also without NOTIFY, "SUCCESS" not."""
    if not recipient.notify:  # hardly anybody says it
        return condition in _UNLESS_ASKED
    asked = {word.strip().upper() for word in recipient.notify.split(",")} - {""}
    return condition in (asked or _UNLESS_ASKED)


class Notices:
    """See the module."""

    def __init__(
        self,
        bus: Bus,
        bodies: BodyStore,
        table: Callable[[], RoutingTable],
        events: EventSink,
        *,
        full_limit_bytes: int,
    ) -> None:
        self._bus = bus
        self._bodies = bodies
        self._table = table
        self._events = events
        self._full_limit_bytes = full_limit_bytes

    async def failed(self, job: Job, results: Results, body: bytes | memoryview, *, maybe_duplicate: bool) -> QueueId:
        """Queue an NDR about `results` (at least one) to the sender, and its copy; returns the NDR's queue id once it is stored.

        Raises TransientError.
        """
        policy = self._table().policy
        sender = job.envelope.reverse_path
        ndr = await self._queue(job, results, body, Action.FAILED, sender, maybe_duplicate=maybe_duplicate)
        if policy.ndr_copy_to and policy.ndr_copy_to.lower() != sender.lower():
            await self._queue(job, results, body, Action.FAILED, policy.ndr_copy_to, maybe_duplicate=maybe_duplicate)
        self._events.tell(job.queue_id, EventKind.NDR_QUEUED, ndr=ndr, recipients=len(results), to=sender)
        return ndr

    async def delayed(self, job: Job, results: Results, body: bytes | memoryview, *, retry_until: datetime) -> None:
        """Queue a delay notice about those of `results` of which the sender wants to hear. Raises TransientError."""
        told = tuple(result for result in results if wants(result.recipient, "DELAY"))
        if not told or not may_be_answered(job):
            return
        sender = job.envelope.reverse_path
        notice = await self._queue(job, told, body, Action.DELAYED, sender, maybe_duplicate=True, retry_until=retry_until)
        self._events.tell(job.queue_id, EventKind.DELAY_NOTIFIED, notice=notice, recipients=len(told), to=sender)

    async def relayed(self, job: Job, results: Results, body: bytes | memoryview) -> None:
        """Queue a notice that `results` were handed on to where no report comes from (RFC 3461 section 5.2.2). Raises TransientError."""
        await self._queue(job, results, body, Action.RELAYED, job.envelope.reverse_path, maybe_duplicate=False)

    async def _queue(
        self,
        job: Job,
        results: Results,
        body: bytes | memoryview,
        action: Action,
        to: str,
        *,
        maybe_duplicate: bool,
        retry_until: datetime | None = None,
    ) -> QueueId:
        table = self._table()
        local_part, _, domain = to.rpartition("@")
        queue_id = notice_id(job, results, action, to)
        at = datetime.now(UTC)
        content = build(
            Notice(
                action=action,
                queue_id=queue_id,
                hostname=table.policy.hostname,
                postmaster=table.policy.postmaster or f"postmaster@{table.policy.hostname}",
                to=to,
                at=at,
                envelope=job.envelope,
                results=results,
                retry_until=retry_until,
                full_limit_bytes=self._full_limit_bytes,
            ),
            body,
        )
        envelope = Envelope(
            id=queue_id,
            gate=Gate.INTERNAL,
            reverse_path="",
            recipients=(Recipient(n=0, address=f"{local_part}@{domain.lower()}" if local_part else to),),
            size_bytes=len(content),
            accepted_at=at,
            client=Client(address="127.0.0.1", helo=table.policy.hostname),
            body_type=BodyType.SEVEN_BIT if content.isascii() else BodyType.EIGHT_BIT_MIME,
            smtputf8=not to.isascii(),
            requiretls=job.envelope.requiretls,  # RFC 8689 section 5
        )
        # a repeat differs in its date, and a stored body cannot be overwritten: the digest keeps their bodies apart
        name = f"{queue_id}-{hashlib.sha256(content).hexdigest()[:8]}"
        envelope, inline = await self._bodies.stow(envelope, name, content, inline_when_full=True)
        notice = Job(
            route=table.route_name(domain.lower()),
            envelope=envelope,
            recipients=envelope.recipients,
            maybe_duplicate=maybe_duplicate,
            is_dsn=True,
        )
        stored = await self._bus.publish(
            OUTBOUND, outbound_subject(notice.route, queue_id), frame(notice, inline), f"{notice.id}:outbound"
        )
        if stored.duplicate:
            return queue_id
        log.info("notice.queued", id=queue_id, about=job.queue_id, action=action.value, recipients=len(results), to=to)
        self._events.tell(
            queue_id,
            EventKind.ACCEPTED,
            gate=Gate.INTERNAL.value,
            reverse_path="",
            recipients=1,
            to=to,
            size_bytes=len(content),
            about=job.queue_id,
        )
        return queue_id


def notice_id(job: Job, results: Results, action: Action, to: str) -> QueueId:
    """The same for the same action about the same recipients of the same job to the same address."""
    about: Iterable[int] = sorted(result.recipient.n for result in results)
    seed = hashlib.sha256(msgspec.json.encode((action.value, job.id, tuple(about), to)))
    return derived_queue_id(job.envelope.accepted_at, seed.digest())
