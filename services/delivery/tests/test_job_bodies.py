"""When the stored body of a job may go."""

from __future__ import annotations

from datetime import UTC, datetime

from fixtures.broker import Broker
from postern_core.bus import BodyStore
from postern_core.bus.topology import QUARANTINE, quarantine_subject
from postern_core.envelope import Client, Envelope, Gate, Recipient, frame
from postern_core.ids import new_queue_id
from postern_core.job import Job
from postern_core.verdict import Decision, HeldMessage, HoldReason, Verdict
from postern_delivery.bodies import JobBodies


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
