"""Bodies: which travel inline, and that a stored one comes back whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import tracemalloc
from dataclasses import replace

import msgspec
import pytest

from fixtures.broker import TEST_LIMITS, Broker
from postern_core.broker.names import PROVISIONER
from postern_core.broker.permissions import MAX_PAYLOAD_BYTES
from postern_core.bus import BodyMissing, BodyStore, Bus
from postern_core.bus.bodies import CHUNK_BYTES
from postern_core.bus.provision import provision
from postern_core.bus.topology import BODIES, INTAKE, intake_subject
from postern_core.envelope import Client, Envelope, Gate, Recipient, frame, unframe
from postern_core.errors import TransientError
from postern_core.ids import accepted_at, new_queue_id
from postern_core.settings import BusSettings


def an_envelope(recipients: int = 1) -> Envelope:
    queue_id = new_queue_id()
    return Envelope(
        id=queue_id,
        gate=Gate.ANON,
        reverse_path="a@example.org",
        recipients=tuple(Recipient(n=n, address=f"{n:064d}@{'d' * 60}.{'e' * 60}.{'f' * 60}.example") for n in range(recipients)),
        size_bytes=5,
        accepted_at=accepted_at(queue_id),
        client=Client(address="127.0.0.1"),
    )


@pytest.fixture
async def screener(broker: Broker) -> Bus:
    return await broker.connect("screener")


@pytest.mark.parametrize(("size", "inline"), [(0, True), (1, True), (1024, True), (1025, False)])
async def test_what_is_over_the_limit_is_stored_and_nothing_else(screener: Bus, size: int, inline: bool) -> None:
    store = BodyStore(screener, "screener", 1024)
    body, envelope = os.urandom(size), an_envelope()
    stowed, beside = await store.stow(envelope, envelope.id, body)
    assert (stowed.body is None, bytes(beside)) == (inline, body if inline else b"")
    assert await store.load(stowed, memoryview(bytes(beside))) == body
    await screener.close()


@pytest.mark.parametrize("size", [CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
async def test_a_body_at_the_edge_of_a_chunk_comes_back_whole(screener: Bus, size: int) -> None:
    store, body = BodyStore(screener, "screener", 1024), os.urandom(size)
    ref = await store.put("x", memoryview(body))
    assert ref.chunks == -(-size // CHUNK_BYTES)
    assert await store.get(ref) == body
    await screener.close()


@pytest.mark.parametrize("head", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
@pytest.mark.parametrize("size", [1025, CHUNK_BYTES, 2 * CHUNK_BYTES - 1])
async def test_what_is_put_in_front_of_a_body_is_stored_with_it(screener: Bus, head: int, size: int) -> None:
    store, front, body = BodyStore(screener, "screener", 1024), os.urandom(head), os.urandom(size)
    envelope = an_envelope()
    stowed, _ = await store.stow(envelope, envelope.id, body, head=front)
    assert stowed.body is not None
    assert stowed.body.size_bytes == head + size
    assert await store.get(stowed.body) == front + body
    await screener.close()


async def test_a_small_body_travels_behind_what_is_put_in_front_of_it(screener: Bus) -> None:
    store, envelope = BodyStore(screener, "screener", 1024), an_envelope()
    assert (await store.stow(envelope, envelope.id, b"x" * 1000, head=b"y" * 24))[1] == b"y" * 24 + b"x" * 1000
    assert (await store.stow(envelope, envelope.id, b"x" * 1000, head=b"y" * 25))[0].body is not None
    await screener.close()


async def test_storing_large_bodies_takes_room_for_the_chunks_under_way_only(screener: Bus) -> None:
    """Was: three copies of each body at once."""
    store, body = BodyStore(screener, "screener", 1024), os.urandom(48 * CHUNK_BYTES)
    tracemalloc.start()
    await asyncio.gather(*(store.put(name, body) for name in ("x", "y", "z")))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * 16 * CHUNK_BYTES  # sixteen chunks, each in a few places on its way into the socket
    await screener.close()


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_a_thousand_long_recipients_and_a_body_at_the_largest_inline_limit_fit_one_message(
    broker: Broker, over: int
) -> None:
    """The broker counts all of a message into max_payload, and one over it closes the connection for every other."""
    limit = max(entry.le for entry in BusSettings.model_fields["inline_limit_bytes"].metadata if hasattr(entry, "le"))
    gate, screener = await broker.connect("ingress-anon"), await broker.connect("screener")
    envelope, body = an_envelope(1000), os.urandom(limit + over)
    assert all(len(recipient.address) >= 250 for recipient in envelope.recipients)
    stowed, beside = await BodyStore(gate, "ingress-anon", limit).stow(envelope, envelope.id, body)
    payload = frame(stowed, beside)
    assert len(payload) < MAX_PAYLOAD_BYTES
    await gate.publish(INTAKE, intake_subject(Gate.ANON, envelope.id), payload, envelope.id)
    assert gate.connected
    head, inline = unframe(payload, Envelope)
    assert await BodyStore(screener, "screener", limit).load(head, inline) == body
    await gate.close()
    await screener.close()


async def test_a_chunk_that_is_gone_is_named(broker: Broker, screener: Bus) -> None:
    store = BodyStore(screener, "screener", 1024)
    ref = await store.put("x", os.urandom(2 * CHUNK_BYTES))
    await screener.purge(BODIES, "body.screener.x.1")
    with pytest.raises(BodyMissing, match=r"body screener.x: chunks \[1\] missing"):
        await store.get(ref)
    await screener.close()


async def test_a_body_that_is_not_what_the_envelope_says_is_never_handed_on(screener: Bus) -> None:
    store = BodyStore(screener, "screener", 1024)
    ref = await store.put("x", b"what was stored")
    other = await store.put("y", b"what was STORED")
    with pytest.raises(BodyMissing, match="digest differs"):
        await store.get(type(ref)(name=ref.name, chunks=1, size_bytes=ref.size_bytes, xxh3=other.xxh3))
    with pytest.raises(BodyMissing, match="digest differs"):
        await store.get(type(ref)(name=ref.name, chunks=1, size_bytes=ref.size_bytes - 1, xxh3=ref.xxh3))
    await screener.close()


async def test_a_reference_of_before_has_a_sha_256(screener: Bus) -> None:
    """What waits in quarantine or for its next attempt may be older than the program."""
    store, body = BodyStore(screener, "screener", 1024), os.urandom(5000)
    ref = msgspec.structs.replace(await store.put("x", body), xxh3="", sha256=hashlib.sha256(body).hexdigest())
    assert await store.get(ref) == body
    with pytest.raises(BodyMissing, match="digest differs"):
        await store.get(msgspec.structs.replace(ref, sha256=hashlib.sha256(b"other").hexdigest()))
    with pytest.raises(BodyMissing, match="digest differs"):
        await store.get(msgspec.structs.replace(ref, sha256=""))
    await screener.close()


async def test_while_the_broker_is_away_a_body_is_neither_there_nor_missing(broker: Broker, screener: Bus) -> None:
    store = BodyStore(screener, "screener", 1024)
    ref = await store.put("x", b"body")
    broker.stop()
    while screener.connected:
        await asyncio.sleep(0.01)
    with pytest.raises(TransientError):
        await store.get(ref)
    with pytest.raises(TransientError):
        await store.put("y", b"body")
    await screener.close()


async def test_a_put_that_dies_half_way_is_finished_by_the_next_one(broker: Broker, screener: Bus) -> None:
    """The same job again, after a crash and a restart of the broker: what is there already is taken over."""
    body = os.urandom(3 * CHUNK_BYTES)
    await screener.publish(BODIES, "body.screener.x.1", body[CHUNK_BYTES : 2 * CHUNK_BYTES], "an id of long ago")
    store = BodyStore(screener, "screener", 1024)
    assert await store.get(await store.put("x", body)) == body
    await screener.close()


async def test_deleting_a_body_leaves_those_of_others(broker: Broker, screener: Bus) -> None:
    provisioner = await broker.connect(PROVISIONER)
    store = BodyStore(screener, "screener", 1)
    first, _ = await store.stow(an_envelope(), "x", b"body")
    await store.stow(an_envelope(), "x-1", b"body")
    await store.delete(first)
    assert await provisioner.subjects(BODIES, "body.>") == {"body.screener.x-1.0": 1}
    await store.delete(first)  # again: harmless
    await store.delete(an_envelope())  # inline: nothing to delete
    await provisioner.close()
    await screener.close()


async def test_a_body_larger_than_what_the_broker_lets_wait_for_a_client_costs_no_connection(screener: Bus) -> None:
    """All chunks were asked for at once: the broker, with over 64 MiB still to be sent, hung up on whatever else was under way."""
    store, body = BodyStore(screener, "screener", 1024), os.urandom(1024) * (80 * 1024)
    ref = await store.put(new_queue_id(), body)
    reading = asyncio.create_task(store.get(ref))
    await asyncio.sleep(0)
    await screener.client.flush()
    time.sleep(1)  # noqa: ASYNC251  (a loop that is busy: what the broker sends meanwhile is not read)
    assert await reading == body
    assert screener.client.stats["reconnects"] == 0


async def test_when_a_chunk_cannot_be_stored_nobody_goes_on_with_the_others(
    screener: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: the rest of a large message that had been refused was still sent, and held its memory."""
    under_way = 0

    async def publish(_stream: str, subject: str, *_: object) -> None:
        nonlocal under_way
        under_way += 1
        try:
            if subject.endswith(".3"):
                raise TransientError(452, "4.3.1", "mail system full, try again later", reason="a test")
            await asyncio.Event().wait()
        finally:
            under_way -= 1

    monkeypatch.setattr(screener, "publish", publish)
    with pytest.raises(TransientError, match="mail system full"):
        await BodyStore(screener, "screener", 1024).put("x", bytes(30 * CHUNK_BYTES))
    assert under_way == 0
    await screener.close()


async def test_while_there_is_no_room_what_makes_some_goes_inline_as_far_as_it_fits(broker: Broker) -> None:
    """Was: BODIES full of mail that rules change stayed full, since each changed copy needed a place beside its original: nothing ever moved again."""
    provisioner = await broker.connect(PROVISIONER)
    await provision(provisioner, replace(TEST_LIMITS, bodies_bytes=2 * CHUNK_BYTES))
    gate, screener = await broker.connect("ingress-anon"), await broker.connect("screener")
    await BodyStore(gate, "ingress-anon", 1024).put("full", os.urandom(CHUNK_BYTES))
    store, envelope = BodyStore(screener, "screener", 1024), an_envelope()
    head, body = b"head", os.urandom(2 * CHUNK_BYTES - 4)
    stowed, inline = await store.stow(envelope, envelope.id, memoryview(body), head=head, inline_when_full=True)
    assert (stowed.body, bytes(inline)) == (None, head + body)
    for refused, inline_when_full in ((os.urandom(6 * CHUNK_BYTES + 1), True), (body, False)):
        with pytest.raises(TransientError, match=r"452 4\.3\.1"):
            await store.stow(envelope, envelope.id, refused, inline_when_full=inline_when_full)
    for bus in (provisioner, gate, screener):
        await bus.close()
