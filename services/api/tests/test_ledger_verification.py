"""The books are compared with the mail itself: a real broker, a real recorder, and delivery's own queue and answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from fixtures.api import MESSAGE, RunningApi, an_end, an_envelope, eventually, hold
from postern_api.ledger import verification
from postern_api.ledger.verification import Verified, Verifier
from postern_core.broker.names import RECORDER_CONSUMER
from postern_core.bus import BodyStore, Bus, DispositionLog
from postern_core.bus.topology import DISPOSITIONS
from postern_core.disposition import DispositionKind
from postern_core.envelope import Envelope, frame
from postern_core.errors import TransientError
from postern_core.events import EventBatch, EventKind, TraceEvent
from postern_core.job import Badmail, Job
from postern_delivery.badmail import BadmailStore
from postern_delivery.bodies import JobBodies
from postern_delivery.control import Control
from postern_delivery.store.database import Database as QueueDatabase
from postern_delivery.store.migrating import migrate as migrate_queue
from postern_delivery.store.repository import QueuedJob, QueueRepository

GRACE_S = 0.3


@dataclass
class Mail:
    """Puts mail and rows where the services would, and takes them away as nobody should."""

    api: RunningApi
    gate: Bus
    screener: Bus
    delivery: Bus
    provisioner: Bus
    queue: QueueRepository

    async def accept(self, envelope: Envelope, *, at: datetime | None = None) -> Envelope:
        """Say that a gate took it, by default just now, and return when the ledger knows."""
        fields: dict[str, str | int | float | bool] = {"gate": "anon", "recipients": len(envelope.recipients), "size_bytes": 5}
        event = TraceEvent(
            id=envelope.id, kind=EventKind.ACCEPTED, at=at or datetime.now(UTC), service="ingress-anon", fields=fields
        )
        batch = msgspec.json.encode(EventBatch(events=(event,)))
        await self.gate.publish("EVENTS", "event.ingress-anon.trace", batch, f"accepted:{envelope.id}")
        await eventually(lambda: self._is_known(envelope.id))
        return envelope

    async def _is_known(self, queue_id: str) -> bool:
        return bool(await self.api.api.context.ledger.known([queue_id]))

    async def intake(self, envelope: Envelope) -> None:
        await self.gate.publish("INTAKE", f"intake.anon.{envelope.id}", frame(envelope, MESSAGE), f"{envelope.id}:intake")

    async def outbound(self, envelope: Envelope) -> None:
        job = a_job(envelope)
        await self.screener.publish("OUTBOUND", f"outbound.main.{envelope.id}", frame(job, MESSAGE), f"{job.id}:outbound")

    async def deferred(self, envelope: Envelope) -> None:
        job = a_job(envelope)
        await self.delivery.publish("DEFERRED", f"deferred.{job.id}", frame(job, MESSAGE), f"{job.id}:deferred")

    async def row(self, envelope: Envelope) -> None:
        await self.queue.insert(a_row(a_job(envelope)))

    async def badmail(self, envelope: Envelope) -> None:
        entry = Badmail(job=a_job(envelope), recipients=envelope.recipients, reason="no way")
        subject = f"badmail.{entry.job.id}"
        await self.delivery.publish("BADMAIL", subject, frame(entry, MESSAGE), f"{entry.job.id}:badmail")

    async def end(self, envelope: Envelope, kind: DispositionKind, *, generation: int = 0) -> None:
        """All recipients come to this end, and the ledger knows."""
        await DispositionLog(self.delivery).write(
            an_end(envelope, kind, recipient.n, generation, route="main") for recipient in envelope.recipients
        )
        await eventually(self.all_recorded)

    async def all_recorded(self) -> bool:
        info = await self.api.bus.consumer_info(DISPOSITIONS, RECORDER_CONSUMER)
        return bool(info["num_pending"] + info["num_ack_pending"] == 0)

    async def lose(self, stream: str) -> None:
        """Delete everything in a stream by hand."""
        for sequence in range(1, int((await self.provisioner.stream_state(stream))["last_seq"]) + 1):
            await self.provisioner.delete(stream, sequence)

    async def verify(self, grace_s: float = GRACE_S) -> Any:
        return await self.api.get("/ledger/verification", grace_s=grace_s)

    async def complaints(self) -> set[tuple[str, str]]:
        """Fault and id of every discrepancy."""
        found = await self.verify()
        assert found["undecided"] == 0
        assert found["count"] == len(found["discrepancies"])
        assert found["balanced"] == (not found["count"])
        return {(each["fault"], each["job_id"] or each["queue_id"]) for each in found["discrepancies"]}


def a_job(envelope: Envelope) -> Job:
    return Job(route="main", envelope=envelope, recipients=envelope.recipients)


def a_row(job: Job) -> QueuedJob:
    now = datetime.now(UTC)
    return QueuedJob(
        job_id=job.id,
        queue_id=job.queue_id,
        route=job.route,
        reverse_path=job.envelope.reverse_path,
        results=(),
        attempts=1,
        accepted_at=job.envelope.accepted_at,
        queued_at=now,
        next_attempt_at=now + timedelta(hours=1),
        expires_at=now + timedelta(days=1),
        size_bytes=job.envelope.size_bytes,
    )


@pytest.fixture
async def mail(api: RunningApi, tmp_path: Path) -> AsyncIterator[Mail]:
    """Delivery answers about its queue; it delivers nothing."""
    buses = [await api.broker.connect(user) for user in ("ingress-anon", "screener", "delivery", "provisioner")]
    database = QueueDatabase(make_url(f"sqlite+aiosqlite:///{tmp_path}/queue.db"))
    await migrate_queue(database)
    repository = QueueRepository(database)
    badmail = BadmailStore(buses[2], JobBodies(buses[2], BodyStore(buses[2], "delivery", 512 * 1024)))
    stop = asyncio.Event()
    answering = asyncio.create_task(Control(buses[2], repository, badmail, lambda _: None).run(stop))

    async def answers() -> bool:
        return (await api.client.get("/queue")).status_code == 200

    await eventually(answers)
    try:
        yield Mail(api, *buses, queue=repository)
    finally:
        stop.set()
        await answering
        await database.close()
        for bus in buses:
            await bus.close()


async def test_the_books_balance_wherever_mail_may_be(mail: Mail) -> None:
    assert (await mail.verify())["looked_at"] == dict.fromkeys(
        ("open", "INTAKE", "QUARANTINE", "OUTBOUND", "DEFERRED", "BADMAIL", "queue_rows", "held", "badmail"), 0
    )
    new, screened, waiting, held, released, bad, done = [await mail.accept(an_envelope()) for _ in range(7)]
    await mail.intake(new)
    await mail.outbound(screened)
    await mail.deferred(waiting)
    await mail.row(waiting)
    await hold(mail.screener, held)
    await mail.end(held, DispositionKind.HELD)
    # a release that was cut short before its jobs were made
    await hold(mail.screener, released)
    await mail.end(released, DispositionKind.RELEASED, generation=1)
    await mail.badmail(bad)
    await mail.end(bad, DispositionKind.BADMAIL)
    await mail.end(done, DispositionKind.DELIVERED)
    found = await mail.verify()
    assert (found["balanced"], found["discrepancies"]) == (True, [])
    assert found["looked_at"] == {
        "open": 4,
        "INTAKE": 1,
        "QUARANTINE": 2,
        "OUTBOUND": 1,
        "DEFERRED": 1,
        "BADMAIL": 1,
        "queue_rows": 1,
        "held": 1,
        "badmail": 1,
    }
    # between two places mail is in both, and what its end will be is not written yet
    for envelope in (new, screened):
        await mail.deferred(envelope)
        await mail.row(envelope)
    await hold(mail.screener, new)
    await mail.badmail(screened)
    assert await mail.complaints() == set()


async def test_open_mail_that_is_nowhere_is_named(mail: Mail) -> None:
    lost, half = await mail.accept(an_envelope()), await mail.accept(an_envelope("a@relay.example", "b@relay.example"))
    await DispositionLog(mail.delivery).write([an_end(half, DispositionKind.BADMAIL, 0, route="main")])
    await mail.badmail(half)
    await eventually(mail.all_recorded)
    found = await mail.verify()
    assert (found["balanced"], found["count"]) == (False, 2)
    assert {each["queue_id"]: (each["fault"], each["job_id"]) for each in found["discrepancies"]} == {
        lost.id: ("missing", ""),
        half.id: ("missing", ""),
    }
    assert all("lost" in each["detail"] for each in found["discrepancies"])


async def test_deferred_mail_and_its_row_are_compared_both_ways(mail: Mail) -> None:
    waiting = await mail.accept(an_envelope())
    await mail.deferred(waiting)
    await mail.row(waiting)
    assert await mail.complaints() == set()
    await mail.lose("DEFERRED")
    without_row = await mail.accept(an_envelope())
    await mail.deferred(without_row)
    assert await mail.complaints() == {
        ("row-without-mail", a_job(waiting).id),
        ("mail-without-row", a_job(without_row).id),
    }


@pytest.mark.parametrize(("stream", "kind"), [("QUARANTINE", DispositionKind.HELD), ("BADMAIL", DispositionKind.BADMAIL)])
async def test_what_the_ledger_has_as_kept_must_be_kept(mail: Mail, stream: str, kind: DispositionKind) -> None:
    kept, not_said = an_envelope(), an_envelope()

    async def keep(envelope: Envelope) -> None:
        await (hold(mail.screener, envelope) if stream == "QUARANTINE" else mail.badmail(envelope))

    await keep(await mail.accept(kept))
    await mail.end(kept, kind)
    assert await mail.complaints() == set()
    await mail.lose(stream)
    await keep(await mail.accept(not_said))
    await mail.end(not_said, DispositionKind.DELETED)
    name = {"QUARANTINE": "held", "BADMAIL": "badmail"}[stream]
    identity = {"QUARANTINE": lambda envelope: envelope.id, "BADMAIL": lambda envelope: a_job(envelope).id}[stream]
    assert await mail.complaints() == {(f"{name}-without-mail", identity(kept)), (f"mail-not-{name}", identity(not_said))}


async def test_mail_that_the_ledger_never_heard_of_is_named(mail: Mail) -> None:
    strangers = [an_envelope() for _ in range(5)]
    places = (mail.intake, mail.outbound, mail.deferred, mail.badmail)
    for place, envelope in zip(places, strangers, strict=False):
        await place(envelope)
    await mail.row(strangers[2])
    await hold(mail.screener, strangers[4])
    await mail.gate.publish("INTAKE", "intake.anon.no-queue-id", b"x", "x")
    expected = {("unknown", envelope.id) for envelope in strangers} | {("unknown", "no")}
    assert await mail.complaints() == expected


async def test_more_ends_than_recipients_do_not_balance(mail: Mail) -> None:
    two, one = an_envelope("a@relay.example", "b@relay.example"), an_envelope()
    await mail.accept(msgspec.structs.replace(one, id=two.id))  # the gate told of one recipient, there are two ends
    await mail.end(two, DispositionKind.DELIVERED)
    assert await mail.complaints() == {("ended-twice", two.id)}


async def looked_once(mail: Mail, verifying: asyncio.Task[Any]) -> None:
    """Return when the first look of a verification is over."""
    verifier: Any = mail.api.api.context.verifier
    look, looked = verifier._look, asyncio.Event()

    async def noting(share: Any) -> Any:
        try:
            return await look(share)
        finally:
            looked.set()

    verifier._look = noting
    await looked.wait()
    assert not verifying.done()


async def test_lost_mail_is_an_alarm_until_the_books_balance(mail: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "PROOF_GRACE_S", GRACE_S)
    lost = await mail.accept(an_envelope())
    await mail.complaints()
    await mail.api.api.context.watch.look()
    answer = await mail.api.get("/alarms")
    [alarm] = answer["alarms"]
    assert (alarm["kind"], alarm["severity"], alarm["figures"]["ids"]) == ("ledger_discrepancies", "critical", [lost.id])
    assert answer["verified_at"] is not None
    await mail.end(lost, DispositionKind.DELIVERED)
    assert await mail.complaints() == set()
    await mail.api.api.context.watch.look()
    assert (await mail.api.get("/alarms"))["alarms"] == []


async def test_a_hasty_verification_raises_no_alarm(mail: Mail) -> None:
    await mail.accept(an_envelope())
    assert (await mail.verify())["count"] == 1
    await mail.api.api.context.watch.look()
    assert (await mail.api.get("/alarms"))["alarms"] == []


async def test_who_asks_waits_for_the_verification_that_nobody_asked_for(mail: Mail) -> None:
    await mail.accept(an_envelope())
    by_itself = asyncio.create_task(mail.api.api.context.verifier.verify_by_itself(GRACE_S))
    await asyncio.sleep(0)
    assert (await mail.verify())["count"] == 1
    assert by_itself.done()
    assert (await by_itself).count == 1


async def test_what_moves_between_two_looks_is_no_discrepancy(mail: Mail) -> None:
    young, ending, moving = an_envelope(), await mail.accept(an_envelope()), await mail.accept(an_envelope())
    await mail.outbound(young)  # its event has not been recorded yet
    await mail.row(moving)  # its mail is not there yet
    verifying = asyncio.create_task(mail.verify(grace_s=60))
    await looked_once(mail, verifying)
    await mail.accept(young)
    await mail.deferred(moving)
    await mail.end(ending, DispositionKind.DELIVERED)
    async with asyncio.timeout(30):  # long before the grace is over
        found = await verifying
    assert (found["balanced"], found["discrepancies"]) == (True, [])


async def test_what_the_recorder_has_not_read_is_not_judged(mail: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    ending, lost = await mail.accept(an_envelope()), await mail.accept(an_envelope())

    async def away(*_: object) -> None:
        raise OperationalError("INSERT", {}, OSError("the database is away"))

    monkeypatch.setattr(verification, "_RECORDING_S", 0.5)
    trace = mail.api.api.context.trace
    record = trace.record
    monkeypatch.setattr(trace, "record", away)
    await DispositionLog(mail.delivery).write([an_end(ending, DispositionKind.DELIVERED)])
    found = await mail.verify()
    assert (found["balanced"], found["count"], found["undecided"]) == (False, 0, 2)  # which of them has ended, nobody can say
    monkeypatch.setattr(trace, "record", record)
    await eventually(mail.all_recorded, 30)
    assert await mail.complaints() == {("missing", lost.id)}


async def test_mail_whose_acceptance_may_wait_to_be_recorded_is_not_judged(mail: Mail) -> None:
    stranger = an_envelope()
    await mail.outbound(stranger)
    # events have come just now, and the newest that is recorded is old: the recorder may be behind
    await mail.intake(await mail.accept(an_envelope(), at=datetime.now(UTC) - timedelta(minutes=5)))
    found = await mail.verify()
    assert (found["balanced"], found["count"], found["undecided"]) == (False, 0, 1)
    await mail.intake(await mail.accept(an_envelope()))
    assert await mail.complaints() == {("unknown", stranger.id)}


async def test_shares_find_the_same_as_one_walk(mail: Mail) -> None:
    for k in range(12):
        envelope = await mail.accept(an_envelope())
        if k % 3 == 0:
            await mail.deferred(envelope)
        elif k % 3 == 1:
            await mail.row(envelope)
    context = mail.api.api.context

    async def found(share: int) -> Verified:
        return await Verifier(context.bus, context.ledger, context.queue, share=share).verify(0.01)

    one, many = await found(1000), await found(2)
    assert one.count == many.count == len(one.findings) == 12
    assert set(one.findings) == set(many.findings)
    assert one.looked_at == many.looked_at


async def test_one_verification_at_a_time(mail: Mail) -> None:
    await mail.accept(an_envelope())
    verifying = asyncio.create_task(mail.verify(grace_s=60))
    await looked_once(mail, verifying)
    refused = await mail.api.client.get("/ledger/verification")
    assert (refused.status_code, refused.json()["error"]) == (409, "verifying")
    verifying.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await verifying


async def answer_of(api: RunningApi) -> tuple[int, str]:
    answer = await api.client.get("/ledger/verification", params={"grace_s": GRACE_S})
    return answer.status_code, answer.json().get("error", "")


async def test_without_delivery_nothing_is_verified(api: RunningApi) -> None:
    assert await answer_of(api) == (503, "delivery_unavailable")


async def test_without_the_broker_nothing_is_verified(mail: Mail) -> None:
    await mail.accept(an_envelope())
    mail.api.broker.stop()
    assert await answer_of(mail.api) == (503, "bus_unavailable")


@pytest.mark.parametrize("cut_short", [False, True])
async def test_deleted_badmail_is_counted_as_deleted(mail: Mail, cut_short: bool) -> None:
    bad, other = await mail.accept(an_envelope("a@relay.example", "b@relay.example")), await mail.accept(an_envelope())
    for envelope in (bad, other):
        await mail.badmail(envelope)
        await mail.end(envelope, DispositionKind.BADMAIL)
    path = f"/badmail/{a_job(bad).id}"
    if cut_short:
        act: Callable[..., Awaitable[int]] = mail.api.api.context.queue.act

        async def away(*_: object) -> int:
            raise TransientError(451, "4.3.0", "away")

        mail.api.api.context.queue.act = away  # type: ignore[method-assign]
        assert (await mail.api.client.delete(path)).status_code == 503
        await eventually(mail.all_recorded)
        assert await mail.complaints() == {("mail-not-badmail", a_job(bad).id)}
        mail.api.api.context.queue.act = act  # type: ignore[method-assign]
    assert (await mail.api.client.delete(path)).status_code == 204
    await eventually(mail.all_recorded)
    total = (await mail.api.get("/ledger"))["total"]
    assert (total["badmail"], total["deleted"], total["in_flight"]) == (1, 2, 0)
    assert await mail.complaints() == set()
    assert (await mail.api.client.delete(path)).status_code == 404
