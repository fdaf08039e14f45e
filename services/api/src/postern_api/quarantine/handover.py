"""What a held message becomes when it is released or forwarded. Pure: jobs and dispositions from the message, the policy and the time.

A release is a new generation of the same message; a forward is a message of our own (gate internal) that the dispositions name as
successor. Both are the same however often they are made, so that a repetition is recognised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Envelope, Gate, Recipient
from postern_core.ids import QueueId, derived_queue_id
from postern_core.job import Job
from postern_core.policy import DeliveryPolicy, DomainTable
from postern_core.verdict import HeldMessage

_LINE: Final = 76  # columns to fold at (RFC 5322 section 2.1.1 asks for at most 78)


def release_jobs(held: HeldMessage, policy: DeliveryPolicy) -> list[Job]:
    """One job for each route that the recipients take, under the next generation."""
    routes = _routes(policy)
    by_route: dict[str, list[Recipient]] = {}
    for recipient in held.envelope.recipients:
        by_route.setdefault(routes.find(recipient.domain) or policy.default_route, []).append(recipient)
    return [
        Job(
            route=route,
            envelope=held.envelope,
            recipients=tuple(recipients),
            generation=held.generation + 1,
            # it may be the second try of a release that was cut short: delivery looks before it sends
            maybe_duplicate=True,
        )
        for route, recipients in sorted(by_route.items())
    ]


def forward_job(held: HeldMessage, to: str, size_bytes: int, policy: DeliveryPolicy, now: datetime) -> Job:
    """The message for `to`, `size_bytes` long. Its queue id derives from the original and the address.

    Its reverse-path is null: nobody outside is to be told whether an administrator's mailbox takes it (no backscatter)."""
    original = held.envelope
    recipient = Recipient(n=0, address=to)
    envelope = Envelope(
        id=forwarded_id(original.id, original.accepted_at, to),
        gate=Gate.INTERNAL,
        reverse_path="",
        recipients=(recipient,),
        size_bytes=size_bytes,
        accepted_at=now,
        client=original.client,
        body_type=original.body_type,
        smtputf8=original.smtputf8 or not to.isascii(),
        requiretls=original.requiretls,  # RFC 8689 section 6
    )
    return Job(
        route=_routes(policy).find(recipient.domain) or policy.default_route,
        envelope=envelope,
        recipients=(recipient,),
        maybe_duplicate=True,
    )


def forwarded_id(original: QueueId, accepted_at: datetime, to: str) -> QueueId:
    """The queue id of the copy for `to` of the message `original`."""
    return derived_queue_id(accepted_at, hashlib.sha256(f"forward{original}{to}".encode()).digest())


def original_recipients_field(recipients: Sequence[Recipient]) -> bytes:
    """`X-Postern-Original-Recipients:` with every address, folded between them (RFC 5322 section 2.2.3)."""
    lines = ["X-Postern-Original-Recipients:"]
    for k, recipient in enumerate(recipients):
        # a gate takes no control characters in a path; should one come all the same, it ends no line here
        address = "".join(c if c.isprintable() else "?" for c in recipient.address)
        word = f" {address}" + ("," if k < len(recipients) - 1 else "")
        if k and len(lines[-1]) + len(word) > _LINE:
            lines.append(word)
        else:
            lines[-1] += word
    return "\r\n".join((*lines, "")).encode()


def ends(held: HeldMessage, kind: DispositionKind, actor: str, at: datetime, successor_id: str = "") -> list[Disposition]:
    """The disposition of each recipient, under the next generation."""
    envelope = held.envelope
    return [
        Disposition(
            id=envelope.id,
            n=recipient.n,
            recipients_total=len(envelope.recipients),
            kind=kind,
            gate=envelope.gate,
            accepted_at=envelope.accepted_at,
            at=at,
            recipient=recipient.address,
            generation=held.generation + 1,
            detail=f"from quarantine, by {actor}",
            successor_id=successor_id,
        )
        for recipient in envelope.recipients
    ]


def with_body(job: Job, envelope: Envelope) -> Job:
    """`job` with the envelope that says where its body is."""
    return msgspec.structs.replace(job, envelope=envelope)


def _routes(policy: DeliveryPolicy) -> DomainTable[str]:
    return DomainTable((domain.pattern, domain.route or policy.default_route) for domain in policy.relay_domains)
