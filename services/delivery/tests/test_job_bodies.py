"""When the stored body of a job may go."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fixtures.broker import Broker
from postern_core.bus import BodyStore
from postern_core.bus.topology import BODIES, DEFERRED, QUARANTINE, deferred_subject, quarantine_subject
from postern_core.control import DeliveryVerb
from postern_core.envelope import Client, Envelope, Gate, Recipient, frame, unframe
from postern_core.ids import new_queue_id
from postern_core.job import Job
from postern_core.policy import RetrySchedule
from postern_core.verdict import Decision, HeldMessage, HoldReason, Verdict
from postern_delivery.bodies import JobBodies

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack


async def test_a_job_leaves_the_body_to_its_message_in_quarantine(broker: Broker) -> None:
    """A screener had let it pass and died, and held it in a second run: the job was let go with the body, and nobody could release the mail."""
    screener, delivery = await broker.connect("screener"), await broker.connect("delivery")
    try:
        envelope = Envelope(
            id=new_queue_id(),
            gate=Gate.INTERNAL,
            reverse_path="x@sender.example",
            recipients=(Recipient(n=0, address="a@relay.example"),),
            size_bytes=5,
            accepted_at=datetime.now(UTC),
            client=Client(address="127.0.0.1"),
        )
        stored, _ = await BodyStore(screener, "screener", 0).stow(envelope, envelope.id, b"hello")
        verdict = Verdict(revision=1, decision=Decision.HOLD, hold_reason=HoldReason.RULE)
        held = frame(HeldMessage(envelope=stored, verdict=verdict), b"")
        await screener.publish(QUARANTINE, quarantine_subject(envelope.id), held, f"{envelope.id}:quarantine:0")
        store = BodyStore(delivery, "delivery", 0)
        bodies = JobBodies(delivery, store)
        job = Job(route="inside", envelope=stored, recipients=envelope.recipients)
        await bodies.let_go(job)
        assert await store.load(stored, memoryview(b"")) == b"hello"
    finally:
        await screener.close()
        await delivery.close()


async def test_what_came_inline_for_want_of_room_is_stored_before_it_waits(stack: Stack) -> None:
    """Readers of DEFERRED ask for as many entries at once as may wait for a connection at the inline limit: with larger ones the broker would hang up."""
    body = b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 9000
    await stack.set_policy(schedule=RetrySchedule(intervals_s=(3600,), delay_notice_s=None, expiry_s=7200))
    stack.smart_host.defer_rcpt("later@relay.example")
    job = await stack.send("later@relay.example", body=body)
    await stack.queued()
    await stack.outbound_is_empty()
    delivery = await stack.broker.connect("delivery")
    waiting = await delivery.last(DEFERRED, deferred_subject(job.id))
    assert waiting is not None
    kept, inline = unframe(waiting.data, Job)
    assert (kept.envelope.body is not None, bytes(inline)) == (True, b"")
    await delivery.close()
    stack.smart_host.behave()
    await stack.change(DeliveryVerb.QUEUE_RETRY, job_id=job.id)
    assert await stack.dispositions(job) == {"later@relay.example": "delivered"}
    assert [message.data for message in stack.smart_host.messages] == [body]
    await stack.holds(BODIES, 0)
