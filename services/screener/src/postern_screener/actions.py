"""Verdict → publish: what each decision writes, and in which order.

What goes beside a message (copies, notices: `companions.py`) goes to OUTBOUND before the message itself comes to an end.
Everything here is durable when `carry_out` returns, and only then may the caller let go of the input. All outputs have ids that derive
from the message, so that a second run over a redelivered message is recognised; a stored body is given away last, because whoever takes it
may delete it as soon as it is done.
    pass     a job for each route: OUTBOUND; those of a batch that take the same route stay together. One that is changed has bytes of its own: the
             stored body as received is left to delivery's janitor, since a redelivery would look for it, and nothing is written down yet by which
             it would know that the body is not lost
    hold     QUARANTINE, then dispositions `held`
    delete   dispositions `deleted`, then the stored body goes
    forward  a new message: OUTBOUND, then dispositions `forwarded` that name it, then the stored body goes
Where rules differ between recipients, each share of them becomes a message of its own, with a queue id that derives from theirs: all of the
above for it, then dispositions `split` that name it, and at last the stored body of the whole goes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import msgspec

from postern_core.batch import MOST_OCTETS, batch_token, frame_batch
from postern_core.bus import BodyStore, Bus, DispositionLog
from postern_core.bus.topology import (
    OUTBOUND,
    QUARANTINE,
    outbound_subject,
    quarantine_subject,
)
from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Envelope, Recipient, frame
from postern_core.ids import QueueId, derived_queue_id
from postern_core.job import Job
from postern_core.verdict import Decision, HeldMessage, Verdict
from postern_screener.changes.edits import Edit, apply
from postern_screener.changes.fields import on_top
from postern_screener.companions import Companion, companions, redirected, redirecting_header
from postern_screener.earlier_runs import beside
from postern_screener.judged import Judged, shares
from postern_screener.ruleset import Ruleset
from postern_screener.screening import FORWARDED_BY_FIELD, Screened
from postern_screener.unscannable import UNSCANNED_FIELD, header_fields

_LARGEST_BATCH: Final = 4 * MOST_OCTETS  # octets; a job names its recipients twice
_THREAD_OVER: Final = 1024 * 1024  # octets; copying more takes as long as screening many small messages does
_GENERATION: Final = 0  # of what the screener writes; only a release from quarantine makes another

Body = bytes | memoryview


class Actions:
    """Publishes outcomes. TransientError from any of its methods: nothing may be let go, run it again later."""

    def __init__(self, bus: Bus, bodies: BodyStore) -> None:
        self._bus = bus
        self._bodies = bodies
        self._dispositions = DispositionLog(bus)

    async def carry_out(self, judged: Sequence[Judged], ruleset: Ruleset, *, redelivered: bool, batch: str = "") -> None:
        """Do what the verdicts say. `batch` is the key of the batch in which the messages came, "" when there is one that came alone."""
        # first, since nobody makes them when the message has come to its end
        await self._accompany(judged, ruleset, redelivered=redelivered)
        await self._carry_out(judged, ruleset, redelivered=redelivered, batch=batch)

    async def _carry_out(self, judged: Sequence[Judged], ruleset: Ruleset, *, redelivered: bool, batch: str) -> None:
        passed = [each for each in judged if each.screened.verdict.decision is Decision.PASS and not each.screened.outcomes]
        work = [self._carry_out_one(each, ruleset, redelivered=redelivered) for each in judged if each not in passed]
        if passed:
            work.append(self._pass(passed, ruleset, redelivered=redelivered, batch=batch))
        if len(work) == 1:  # as nearly always: no task for it
            await work[0]
            return
        # each to its end: what one of them cannot store holds up no other, and nothing goes on behind the caller's back
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _carry_out_one(self, judged: Judged, ruleset: Ruleset, *, redelivered: bool) -> None:
        envelope, verdict = judged.envelope, judged.screened.verdict
        if judged.screened.outcomes:
            await self._split(judged, ruleset, redelivered=redelivered)
        elif verdict.decision is Decision.HOLD:
            await self._hold(judged)
        elif verdict.decision is Decision.DELETE:
            await self._write(envelope, DispositionKind.DELETED, verdict)
            await self._bodies.delete(envelope)
        else:
            await self._forward(judged, ruleset, redelivered=redelivered)

    async def _split(self, judged: Judged, ruleset: Ruleset, *, redelivered: bool) -> None:
        for share in shares(judged):
            known = [judged.known.get(recipient.n) for recipient in share.envelope.recipients]
            if all(end is not None and end.kind is DispositionKind.SPLIT for end in known):
                continue
            await self._carry_out_share(share, ruleset, redelivered=redelivered)
            await self._write(judged.envelope, DispositionKind.SPLIT, share.screened.verdict, share.envelope)
        await self._bodies.delete(judged.envelope)

    async def _carry_out_share(self, share: Judged, ruleset: Ruleset, *, redelivered: bool) -> None:
        known = await self.known(share.envelope, "") if redelivered else {}
        if len(known) == len(share.envelope.recipients):
            return  # an earlier run did it, and was cut short before it could write that down of the whole
        share = beside(share, known, has_ended=False) or share
        screened = share.screened
        # what is changed is stored as it is then
        if screened.verdict.decision is Decision.HOLD or (screened.verdict.decision is Decision.PASS and not edits_of(screened)):
            goes_on = screened.verdict.decision is Decision.PASS
            envelope, _ = await self._bodies.stow(share.envelope, share.envelope.id, share.body, inline_when_full=goes_on)
            share = replace(share, envelope=envelope)
        await self._carry_out([share], ruleset, redelivered=redelivered, batch="")

    async def known(self, envelope: Envelope, batch: str) -> dict[int, Disposition]:
        """What an earlier run, or whoever it handed the message to, has written down of each recipient, by `Recipient.n`.

        It tells a body that its new owner deleted after use from one that is lost: an owner writes dispositions before it deletes. And a message of
        which every recipient has come to an end is not judged again, perhaps by other rules or as poison: that would give it a second one.
        """
        return await self._dispositions.known(envelope, batch)

    async def _accompany(self, judged: Sequence[Judged], ruleset: Ruleset, *, redelivered: bool) -> None:
        for each in judged:
            for companion in companions(each.envelope, each.body, each.screened, ruleset):
                await self._send_along(companion, ruleset, redelivered=redelivered)

    async def _send_along(self, companion: Companion, ruleset: Ruleset, *, redelivered: bool) -> None:
        own = companion.envelope
        route = ruleset.route_of(own.recipients[0].domain)
        # is_dsn: when it cannot be delivered it is kept in BADMAIL, and nobody is told
        job = Job(route=route, envelope=own, recipients=own.recipients, maybe_duplicate=redelivered, is_dsn=True)
        name = _body_name(job, companion.head)
        stowed, inline = await self._bodies.stow(own, name, companion.body, head=companion.head, inline_when_full=True)
        job = msgspec.structs.replace(job, envelope=stowed)
        await self._publish_job(job, bytes(inline))

    async def _pass(self, passed: Sequence[Judged], ruleset: Ruleset, *, redelivered: bool, batch: str) -> None:
        by_route: dict[str, list[tuple[Job, Body]]] = {}
        for each in passed:
            jobs = split_by_route(each.envelope, ruleset, redelivered=redelivered, batch=batch)
            if edits_of(each.screened):
                for job, inline in await self._changed(each, jobs):
                    by_route.setdefault(job.route, []).append((job, inline))
                continue
            if each.envelope.body is not None:  # it is alone
                await self._pass_stored(each, jobs)
                return
            for job in jobs:
                by_route.setdefault(job.route, []).append((job, each.body))
        for route, batched in by_route.items():
            if len(batched) > 1 and any(job.envelope.body is not None for job, _ in batched):
                await self._publish_each(batched)
            elif len(batched) == 1:
                await self._publish_job(*batched[0])
            else:
                await self._publish_batch(route, batched)

    async def _pass_stored(self, judged: Judged, jobs: Sequence[Job]) -> None:
        for job in jobs[1:]:
            own, inline = await self._bodies.stow(judged.envelope, job.id, judged.body, inline_when_full=True)
            await self._publish_job(msgspec.structs.replace(job, envelope=own), bytes(inline))
        # last: from here on the body is this job's, and may be gone before we get to our ack
        await self._publish_job(jobs[0], b"")

    async def _changed(self, judged: Judged, jobs: Sequence[Job]) -> list[tuple[Job, Body]]:
        """The jobs of a message that is changed, each with its changed bytes or a stored copy of its own."""
        body = await _as_changed(judged)
        envelope = msgspec.structs.replace(judged.envelope, size_bytes=len(body), body=None)
        changed: list[tuple[Job, Body]] = []
        for job in jobs:
            own, inline = await self._bodies.stow(envelope, _body_name(job, body), body, inline_when_full=True)
            changed.append((msgspec.structs.replace(job, envelope=own), bytes(inline)))
        return changed

    async def _publish_each(self, batched: Sequence[tuple[Job, Body]]) -> None:
        for job, body in batched:
            await self._publish_job(job, body)

    async def _publish_job(self, job: Job, body: Body) -> None:
        subject = outbound_subject(job.route, job.queue_id)
        await self._bus.publish(OUTBOUND, subject, frame(job, body), f"{job.id}:outbound")

    async def _publish_batch(self, route: str, batched: Sequence[tuple[Job, Body]]) -> None:
        subject = outbound_subject(route, batch_token(job.queue_id for job, _ in batched))
        # of the members: a later run that lets others pass is no copy of this one, and none of them may get lost for that
        digest = hashlib.blake2b("\n".join(job.id for job, _ in batched).encode(), digest_size=16).hexdigest()
        payload = frame_batch([(msgspec.json.encode(job), body) for job, body in batched])
        if len(payload) > _LARGEST_BATCH:
            # from a gate that did not count heads: refused by the broker, it would stay in INTAKE for ever
            await self._publish_each(batched)
            return
        await self._bus.publish(OUTBOUND, subject, payload, f"{digest}:outbound")

    async def _hold(self, judged: Judged) -> None:
        envelope, screened = judged.envelope, judged.screened
        held = HeldMessage(
            envelope=envelope,
            verdict=screened.verdict,
            subject=screened.subject,
            generation=_GENERATION,
            came_in_at=judged.came_in_at,
        )
        inline = judged.body if envelope.body is None else b""
        msg_id = f"{envelope.id}:quarantine:{_GENERATION}"
        await self._bus.publish(QUARANTINE, quarantine_subject(envelope.id), frame(held, inline), msg_id)
        await self._write(envelope, DispositionKind.HELD, screened.verdict)

    async def _forward(self, judged: Judged, ruleset: Ruleset, *, redelivered: bool) -> None:
        envelope, verdict = judged.envelope, judged.screened.verdict
        head = forwarding_header(envelope, verdict)
        copy = head + await _as_changed(judged)
        forwarded = forwarded_envelope(envelope, verdict.forward_to, len(copy))
        route = ruleset.route_of(forwarded.recipients[0].domain)
        # is_dsn: when it cannot be delivered it is kept in BADMAIL, and the sender is not told where his mail went
        job = Job(route=route, envelope=forwarded, recipients=forwarded.recipients, maybe_duplicate=redelivered, is_dsn=True)
        name = _body_name(job, copy) if judged.screened.edits else job.id
        stowed, inline = await self._bodies.stow(forwarded, name, copy, inline_when_full=True)
        await self._publish_job(msgspec.structs.replace(job, envelope=stowed), bytes(inline))
        await self._write(envelope, DispositionKind.FORWARDED, verdict, forwarded)
        await self._bodies.delete(envelope)

    async def _write(
        self, envelope: Envelope, kind: DispositionKind, verdict: Verdict, successor: Envelope | None = None
    ) -> None:
        """How each recipient ended; of `split`, those whom the successor has."""
        now = datetime.now(UTC)
        await self._dispositions.write(
            Disposition(
                id=envelope.id,
                n=recipient.n,
                recipients_total=len(envelope.recipients),
                kind=kind,
                gate=envelope.gate,
                accepted_at=envelope.accepted_at,
                at=now,
                recipient=recipient.address,
                generation=_GENERATION,
                detail=verdict.detail,
                successor_id="" if successor is None else successor.id,
            )
            for recipient in (successor if successor is not None and kind is DispositionKind.SPLIT else envelope).recipients
        )


async def _as_changed(judged: Judged) -> Body:
    """The message as its edits make it."""
    body, edits = judged.body, edits_of(judged.screened)
    if not edits:
        return body
    return await asyncio.to_thread(apply, body, edits) if len(body) > _THREAD_OVER else apply(body, edits)


def _body_name(job: Job, content: Body) -> str:
    """What the stored body of a job is called that newer rules may make something else of: it cannot be overwritten, so the digest keeps them apart."""
    return f"{job.id}-{hashlib.blake2b(content, digest_size=8).hexdigest()}"


def split_by_route(envelope: Envelope, ruleset: Ruleset, *, redelivered: bool, batch: str = "") -> list[Job]:
    """One job for each route that the recipients take, in the order of RCPT."""
    by_route: dict[str, list[Recipient]] = {}
    for recipient in envelope.recipients:
        by_route.setdefault(ruleset.route_of(recipient.domain), []).append(recipient)
    key = batch or (envelope.id if len(envelope.recipients) > 1 else "")
    return [
        Job(route=route, envelope=envelope, recipients=tuple(recipients), maybe_duplicate=redelivered, batch=key)
        for route, recipients in by_route.items()
    ]


def forwarded_id(envelope: Envelope, forward_to: str) -> QueueId:
    """The queue id of the copy that goes to `forward_to`: the same for each attempt to make it."""
    digest = hashlib.sha256(b"forward" + envelope.id.encode() + forward_to.encode()).digest()
    return derived_queue_id(envelope.accepted_at, digest)


def forwarded_envelope(envelope: Envelope, forward_to: str, size_bytes: int) -> Envelope:
    """The envelope of the copy that goes to `forward_to` instead of the recipients."""
    return redirected(envelope, forwarded_id(envelope, forward_to), forward_to, size_bytes)


def forwarding_header(envelope: Envelope, verdict: Verdict) -> bytes:
    """The fields in front of that copy."""
    return redirecting_header(envelope, FORWARDED_BY_FIELD, verdict.deciding.rule_id if verdict.deciding is not None else "")


def edits_of(screened: Screened) -> Sequence[Edit]:
    """What a message that goes on is changed by: edits of rules, and on top fields where it passes although not everything was screened."""
    verdict = screened.verdict
    marks: list[Edit] = []
    if verdict.unscanned:
        marks.append(on_top([(UNSCANNED_FIELD, ", ".join(verdict.unscanned))]))
    if fields := header_fields(verdict):
        marks.append(Edit(0, 0, fields))
    return (*marks, *screened.edits) if marks else screened.edits
