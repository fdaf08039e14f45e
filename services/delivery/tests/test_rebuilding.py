"""Loss and repair: the database away or gone, rows and mail that do not match, bodies that nobody refers to."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url
from structlog.testing import capture_logs

from fixtures.postgres import Postgres
from postern_core.bus import BodyMissing, BodyStore
from postern_core.bus.topology import BADMAIL, DEFERRED, INTAKE, deferred_subject, intake_subject
from postern_core.control import DeliveryVerb, QueueState
from postern_core.envelope import BodyRef, Client, Envelope, Gate, Recipient, frame
from postern_core.ids import accepted_at, new_queue_id, parse_queue_id
from postern_core.policy import RetrySchedule
from postern_delivery.orphans import OrphanBodies
from postern_delivery.retry import RetryLoop
from postern_delivery.store.database import Database
from postern_delivery.store.repository import QueueRepository

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack

RARE = RetrySchedule(intervals_s=(3600,), delay_notice_s=None, expiry_s=7200)


async def test_a_lost_database_is_rebuilt_from_the_stream(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    stack.smart_host.defer_rcpt("later@relay.example")
    job = await stack.send("later@relay.example", "now@relay.example")
    await stack.queued()
    await stack.outbound_is_empty()
    await stack.stop()
    database = Path(str(make_url(stack.settings.database_url).database))
    for file in database.parent.glob("queue.db*"):
        file.unlink()
    stack.smart_host.behave()
    await stack.start()
    assert await stack.dispositions(job) == {"later@relay.example": "delivered", "now@relay.example": "delivered"}
    assert [m.recipients for m in stack.smart_host.messages] == [("now@relay.example",), ("later@relay.example",)]
    await stack.holds(DEFERRED, 0)


async def test_without_a_database_mail_flows_and_what_must_wait_waits_in_the_stream(
    idle_stack: Stack, postgres_server: Postgres, postgres_url: str
) -> None:
    stack = idle_stack
    stack.settings = stack.settings.model_copy(update={"database_url": postgres_url})
    await stack.start()
    postgres_server.halt()
    stack.smart_host.defer_rcpt("later@relay.example")
    job = await stack.send("later@relay.example", "now@relay.example")
    await stack.holds(DEFERRED, 1)
    await stack.outbound_is_empty()
    with pytest.raises(RuntimeError, match="database"):
        await stack.queue()
    await asyncio.to_thread(postgres_server.launch)
    [row] = (await stack.queued()).rows
    assert row.recipients == ("later@relay.example",)
    stack.smart_host.behave()
    assert (await stack.dispositions(job))["later@relay.example"] == "delivered"


async def test_it_starts_without_its_database(idle_stack: Stack, tmp_path: Path) -> None:
    stack = idle_stack
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    stack.settings = stack.settings.model_copy(update={"database_url": f"sqlite+aiosqlite:///{blocked / 'queue.db'}"})
    stack.expects_database = False
    await stack.start()
    assert await stack.dispositions(await stack.send("a@relay.example")) == {"a@relay.example": "delivered"}
    stack.smart_host.defer_rcpt("b@relay.example")
    waiting = await stack.send("b@relay.example")
    await stack.holds(DEFERRED, 1)
    blocked.unlink()
    stack.smart_host.behave()
    assert await stack.dispositions(waiting) == {"b@relay.example": "delivered"}


async def test_a_row_whose_mail_is_gone_is_set_aside_with_an_alarm(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    await stack.smart_host.stop()
    job = await stack.send("a@relay.example")
    await stack.queued()
    await stack.outbound_is_empty()
    stored = await stack._bus.last(DEFERRED, deferred_subject(job.id))
    assert stored is not None

    async def frozen() -> bool:
        return (await stack.queue()).rows[0].state is QueueState.FROZEN

    with capture_logs() as told:
        await stack._bus.delete(DEFERRED, stored.sequence)
        await stack.until(frozen)
    assert [(line["event"], line["id"]) for line in told if line.get("alarm")] == [("deferred.mail_missing", job.queue_id)]
    assert "missing" in (await stack.queue()).rows[0].last_reply


async def test_the_row_of_a_job_that_was_settled_before_a_crash_goes(stack: Stack) -> None:
    """The database is older than the stream: restored from a backup."""
    await stack.smart_host.stop()
    job = await stack.send("a@relay.example")
    await stack.queued()
    repository = QueueRepository(Database(stack.settings.database()))
    row = await repository.get(job.id)
    assert row is not None
    await stack.smart_host.start()
    await stack.dispositions(job)
    await stack.queued(0)
    await repository.insert(row)
    await stack.queued(0)
    assert len(stack.smart_host.messages) == 1


async def test_a_large_body_lives_as_long_as_its_job(stack: Stack) -> None:
    lines = [os.urandom(36).hex().encode() for _ in range(2000)]
    body = b"\r\n".join([b"Subject: large", b"", *lines, b""])
    store = BodyStore(stack.api, "api", 1024)
    queue_id = new_queue_id()
    ref = await store.put(queue_id, body)
    stack.smart_host.defer_rcpt("b@relay.example")
    job = await stack.send("a@relay.example", "b@relay.example", body=body, queue_id=queue_id, stored=ref)
    await stack.queued()
    stack.smart_host.behave()
    assert set((await stack.dispositions(job)).values()) == {"delivered"}
    assert [m.data for m in stack.smart_host.messages] == [body, body]
    await stack.holds("BODIES", 0)


async def test_a_missing_body_sets_the_job_aside_and_no_empty_mail_goes_out(stack: Stack) -> None:
    store = BodyStore(stack.api, "api", 1024)
    queue_id = new_queue_id()
    ref = await store.put(queue_id, b"Subject: x\r\n\r\nlost\r\n")
    await store.delete(_envelope_with(ref))
    with pytest.raises(BodyMissing):
        await store.get(ref)
    with capture_logs() as told:
        job = await stack.send("a@relay.example", queue_id=queue_id, stored=ref)
        [row] = (await stack.queued()).rows
    assert [(line["event"], line["id"]) for line in told if line.get("alarm")] == [("body.missing", queue_id)]
    assert row.state is QueueState.FROZEN
    assert "missing" in row.last_reply
    assert stack.smart_host.messages == []
    # an administrator gives up: the sender is told, without the message
    await stack.change(DeliveryVerb.QUEUE_DELETE, queue_id=queue_id, with_ndr=True)
    assert await stack.dispositions(job) == {"a@relay.example": "bounced"}
    [ndr] = await stack.smart_host.wait_for(1)
    assert ndr.recipients == ("me@sender.example",)


def _envelope_with(ref: BodyRef) -> Envelope:
    queue_id = parse_queue_id(ref.name.partition(".")[2])
    return Envelope(
        id=queue_id,
        gate=Gate.ANON,
        reverse_path="",
        recipients=(Recipient(n=0, address="a@relay.example"),),
        size_bytes=1,
        accepted_at=accepted_at(queue_id),
        client=Client(address="127.0.0.1"),
        body=ref,
    )


async def test_badmail_keeps_its_body_until_it_is_deleted(stack: Stack) -> None:
    store = BodyStore(stack.api, "api", 1024)
    queue_id = new_queue_id()
    ref = await store.put(queue_id, b"Subject: x\r\n\r\nkept\r\n")
    stack.smart_host.refuse_rcpt("a@relay.example")
    job = await stack.send("a@relay.example", queue_id=queue_id, stored=ref, sender="")
    assert await stack.dispositions(job) == {"a@relay.example": "badmail"}
    await stack.outbound_is_empty()
    assert await store.get(ref)
    await stack.change(DeliveryVerb.BADMAIL_DELETE, queue_id=queue_id)
    await stack.holds("BODIES", 0)
    await stack.holds(BADMAIL, 0)


async def test_orphaned_bodies_go_and_all_others_stay(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    stack.smart_host.defer_rcpt("later@relay.example")
    stack.smart_host.refuse_rcpt("bad@relay.example")
    store = BodyStore(stack.api, "api", 1024)
    kept = []
    for address in ("later@relay.example", "bad@relay.example"):  # DEFERRED, BADMAIL
        queue_id = new_queue_id()
        ref = await store.put(queue_id, b"Subject: x\r\n\r\nkept\r\n")
        kept.append(ref)
        await stack.send(address, queue_id=queue_id, stored=ref, sender="")
    await stack.queued()
    await stack.holds(BADMAIL, 1)
    gate = await stack.broker.connect("ingress-anon")
    waiting, orphan = new_queue_id(), new_queue_id()
    gate_store = BodyStore(gate, "ingress-anon", 1024)
    kept.append(await gate_store.put(waiting, b"kept"))
    envelope = _envelope_with(kept[-1])
    await gate.publish(INTAKE, intake_subject(Gate.ANON, waiting), frame(envelope), "kept")  # nobody screens here
    lost = await gate_store.put(orphan, b"lost")

    orphans = OrphanBodies(stack._bus, grace_s=0.2)
    removed = 0

    async def swept() -> bool:
        nonlocal removed
        removed += await orphans.sweep()
        return removed > 0

    await stack.until(swept)
    for _ in range(3):
        removed += await orphans.sweep()
    assert removed == 1
    with pytest.raises(BodyMissing):
        await store.get(lost)
    for ref in kept:
        assert await store.get(ref)
    await gate.close()


async def test_a_fresh_body_is_left_alone_however_old_its_id_is(stack: Stack) -> None:
    """A notice's id carries the time of the mail that it is about: its body must not be taken for an old one."""
    old = new_queue_id(now_ms=1_700_000_000_000)
    ref = await BodyStore(stack.api, "api", 1024).put(old, b"fresh")
    orphans = OrphanBodies(stack._bus, grace_s=3600)
    assert await orphans.sweep() == 0
    assert await orphans.sweep() == 0
    assert await BodyStore(stack.api, "api", 1024).get(ref) == b"fresh"


async def test_a_second_replica_takes_over_what_a_dead_one_had_leased(
    idle_stack: Stack, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dead(*_: object) -> None:
        """A dead replica gives nothing back."""

    stack = idle_stack
    stack.settings = stack.settings.model_copy(update={"database_url": postgres_url})
    await stack.start()
    stack.smart_host.defer_rcpt("a@relay.example")
    job = await stack.send("a@relay.example")
    await stack.queued()
    stack.smart_host.behave()
    stack.smart_host.slow(30)

    async def leased() -> bool:
        return (await stack.queue()).rows[0].state is QueueState.LEASED

    await stack.until(leased)
    with monkeypatch.context() as patched:
        patched.setattr(RetryLoop, "_give_back", dead)
        await stack.kill()
    database = Database(stack.settings.database())
    row = await QueueRepository(database).get(job.id)
    await database.close()
    assert row is not None
    assert row.lease_owner
    stack.smart_host.behave()
    await stack.start()
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
    assert len(stack.smart_host.messages) == 1
