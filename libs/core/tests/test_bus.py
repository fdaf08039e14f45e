"""The bus against a real broker."""

from __future__ import annotations

import asyncio
import os
import signal

import nats.errors
import pytest

from fixtures.broker import Broker
from postern_core.bus import BodyMissing, BodyStore, Consumer, Delivered, PolicyWatch
from postern_core.bus.publishing import SubjectTakenError
from postern_core.bus.topology import BODIES, INTAKE, KV_STATUS, intake_subject
from postern_core.envelope import Client, Envelope, Gate, Recipient, frame, unframe
from postern_core.errors import TransientError
from postern_core.ids import accepted_at, new_queue_id
from postern_core.policy import GatePolicy, Section, encode_section


def an_envelope() -> Envelope:
    queue_id = new_queue_id()
    return Envelope(
        id=queue_id,
        gate=Gate.ANON,
        reverse_path="a@example.org",
        recipients=(Recipient(n=0, address="b@relay.example"),),
        size_bytes=5,
        accepted_at=accepted_at(queue_id),
        client=Client(address="127.0.0.1"),
    )


async def test_a_published_message_is_handled_and_then_gone(broker: Broker) -> None:
    gate, screener = await broker.connect("ingress-anon"), await broker.connect("screener")
    stop, handled = asyncio.Event(), asyncio.Event()
    seen: list[tuple[Envelope, bytes]] = []

    async def handle(delivered: Delivered) -> None:
        envelope, body = unframe(delivered.data, Envelope)
        seen.append((envelope, bytes(body)))
        await delivered.ack()
        handled.set()

    envelope = an_envelope()
    consumer = Consumer(screener, INTAKE, "screener", handle, concurrency=4)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run(stop, 1))
        first = await gate.publish(
            INTAKE, intake_subject(Gate.ANON, envelope.id), frame(envelope, b"hello"), f"{envelope.id}:intake"
        )
        await handled.wait()
        stop.set()
    assert seen == [(envelope, b"hello")]
    assert not first.duplicate
    await gate.close()
    await screener.close()


async def test_a_repeated_publish_is_recognised_by_its_id(broker: Broker) -> None:
    gate = await broker.connect("ingress-anon")
    envelope = an_envelope()
    subject = intake_subject(Gate.ANON, envelope.id)
    first = await gate.publish(INTAKE, subject, frame(envelope), "same")
    again = await gate.publish(INTAKE, subject, frame(envelope), "same")
    assert again.duplicate
    assert again.seq == first.seq
    await gate.close()


async def test_publishing_without_a_broker_is_a_transient_error_at_once(broker: Broker) -> None:
    gate = await broker.connect("ingress-anon")
    broker.stop()
    while gate.connected:
        await asyncio.sleep(0.01)
    with pytest.raises(TransientError) as refused:
        await gate.publish(INTAKE, intake_subject(Gate.ANON, new_queue_id()), b"x", "id")
    assert str(refused.value.reply).startswith("451 4.3.0")
    await gate.close()


async def test_a_late_answer_to_a_flush_that_was_given_up_does_not_end_the_reading(broker: Broker) -> None:
    """The api's readiness check did that while the broker was paused for three seconds: for twenty more the api heard nothing."""
    api = await broker.connect("api")
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)
    await asyncio.to_thread(os.waitid, os.P_PID, broker.process.pid, os.WSTOPPED)
    try:
        with pytest.raises(nats.errors.FlushTimeoutError):
            await api.client.flush(timeout=1)
    finally:
        broker.process.send_signal(signal.SIGCONT)
    assert await api.kv_get(KV_STATUS, "delivery.nobody") is None
    await api.close()


async def test_a_handler_that_fails_gets_the_message_again_after_a_broker_restart(broker: Broker) -> None:
    gate, screener = await broker.connect("ingress-anon"), await broker.connect("screener")
    stop = asyncio.Event()
    tries: list[int] = []

    async def handle(delivered: Delivered) -> None:
        tries.append(delivered.tries)
        if delivered.tries == 1:
            await delivered.retry(0.2)
            return
        await delivered.ack()
        stop.set()

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(Consumer(screener, INTAKE, "screener", handle, concurrency=4).run(stop, 1))
        await asyncio.to_thread(broker.restart)
        while not gate.connected:
            await asyncio.sleep(0.05)
        await gate.publish(INTAKE, intake_subject(Gate.ANON, new_queue_id()), frame(an_envelope()), "again")
    assert tries == [1, 2]
    await gate.close()
    await screener.close()


async def test_a_large_body_travels_by_reference_and_a_lost_chunk_is_noticed(broker: Broker) -> None:
    gate, screener = await broker.connect("ingress-anon"), await broker.connect("screener")
    body = os.urandom(3 * 1024 * 1024 + 17)
    envelope = an_envelope()
    stowed, inline = await BodyStore(gate, "ingress-anon", 1024).stow(envelope, envelope.id, body)
    assert stowed.body is not None
    assert stowed.body.chunks == 4
    assert inline == b""
    reader = BodyStore(screener, "screener", 1024)
    assert await reader.load(stowed, memoryview(b"")) == body
    await reader.delete(stowed)
    with pytest.raises(BodyMissing):
        await reader.load(stowed, memoryview(b""))
    await gate.close()
    await screener.close()


async def test_a_stored_body_cannot_be_overwritten(broker: Broker) -> None:
    screener = await broker.connect("screener")
    store = BodyStore(screener, "screener", 1024)
    ref = await store.put("x", b"first")
    assert await store.put("x", b"first") == ref
    with pytest.raises(SubjectTakenError):
        await store.put("x", b"other")
    assert await store.get(ref) == b"first"
    await screener.close()


async def test_a_body_that_an_earlier_run_left_behind_is_taken_over(broker: Broker) -> None:
    """Its chunks may outlive the duplicate window: then a repeat is not told by its id."""
    screener = await broker.connect("screener")
    await screener.publish(BODIES, "body.screener.x.0", b"first", "an id that is forgotten")
    store = BodyStore(screener, "screener", 1024)
    ref = await store.put("x", b"first")
    assert await store.get(ref) == b"first"
    await screener.close()


async def test_a_policy_change_is_applied_within_a_second(broker: Broker) -> None:
    api, gate = await broker.connect("api"), await broker.connect("ingress-anon")
    stop = asyncio.Event()
    changes: asyncio.Queue[GatePolicy] = asyncio.Queue()
    watch = PolicyWatch(gate, Section.GATES, GatePolicy, lambda policy: policy, on_change=changes.put_nowait)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(watch.run(stop))
        await api.kv_put("POLICY", "gates", encode_section(GatePolicy(revision=1, hostname="mx.example")))
        assert (await changes.get()).revision == 1
        await api.kv_put("POLICY", "gates", encode_section(GatePolicy(revision=2, hostname="mx.example")))
        async with asyncio.timeout(5):
            assert (await changes.get()).revision == 2
        await api.kv_put("POLICY", "gates", b"rubbish")
        while not watch.error:
            await asyncio.sleep(0.01)
        assert watch.revision == 2
        stop.set()
    await api.close()
    await gate.close()
