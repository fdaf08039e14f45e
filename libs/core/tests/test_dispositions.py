"""Dispositions against a real broker: alone, of many recipients, of a batch; and what a look-up finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from fixtures.broker import Broker
from postern_core.bus import Bus, DispositionLog
from postern_core.bus.topology import DISPOSITIONS
from postern_core.disposition import Disposition, DispositionKind, read_dispositions
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.errors import TransientError
from postern_core.ids import accepted_at, new_queue_id
from postern_core.job import Job


def a_job(recipients: int = 1, *, batch: str = "", generation: int = 0) -> Job:
    queue_id = new_queue_id()
    everybody = tuple(Recipient(n=n, address=f"r{n}@relay.example") for n in range(recipients))
    envelope = Envelope(
        id=queue_id,
        gate=Gate.ANON,
        reverse_path="a@example.org",
        recipients=everybody,
        size_bytes=5,
        accepted_at=accepted_at(queue_id),
        client=Client(address="127.0.0.1"),
    )
    return Job(route="default", envelope=envelope, recipients=everybody, batch=batch, generation=generation)


def an_end(job: Job, n: int = 0, kind: DispositionKind = DispositionKind.DELIVERED, generation: int = 0) -> Disposition:
    return Disposition(
        id=job.queue_id,
        n=n,
        recipients_total=len(job.envelope.recipients),
        kind=kind,
        gate=Gate.ANON,
        accepted_at=job.envelope.accepted_at,
        at=datetime.now(UTC),
        recipient=f"r{n}@relay.example",
        generation=generation,
    )


@pytest.fixture
async def bus(broker: Broker) -> AsyncIterator[Bus]:
    bus = await broker.connect("delivery")
    yield bus
    await bus.close()


async def subjects(bus: Bus) -> dict[str, int]:
    return await bus.subjects(DISPOSITIONS, ">")


async def test_one_alone_has_its_recipient_in_its_subject(bus: Bus) -> None:
    job, log = a_job(), DispositionLog(bus)
    assert await log.settled(job, job.recipients) == frozenset()
    await log.write([an_end(job)])
    assert await subjects(bus) == {f"disposition.{job.queue_id}.0": 1}
    assert await log.settled(job, job.recipients) == {0}
    assert set(await log.known(job.envelope, "")) == {0}


async def test_those_of_many_recipients_share_messages(bus: Bus) -> None:
    job, log = a_job(250, batch="key"), DispositionLog(bus)
    await log.write((an_end(job, n) for n in range(0, 240, 2)), batch="key")
    assert sum((await subjects(bus)).values()) == 2
    assert await log.settled(job, job.recipients) == frozenset(range(0, 240, 2))
    assert await log.settled(job, job.recipients[:3]) == {0, 2}
    await log.write([an_end(job, 1)])
    assert set(await log.known(job.envelope, "key")) == {1, *range(0, 240, 2)}


async def test_those_of_a_message_with_many_recipients_are_found_without_its_job(bus: Bus) -> None:
    """A screener that is given the message once more does not know how it went on: the key is then the queue id."""
    job, log = a_job(3), DispositionLog(bus)
    await log.write((an_end(job, n) for n in range(2)), batch=job.queue_id)
    await log.write([an_end(job, 2, DispositionKind.BOUNCED)])
    assert set(await log.known(job.envelope, "")) == {0, 1, 2}


async def test_those_of_a_batch_that_end_at_the_same_moment_share_one(bus: Bus) -> None:
    key = new_queue_id()
    first, second, third = (a_job(batch=key) for _ in range(3))
    log = DispositionLog(bus)
    await asyncio.gather(log.write([an_end(first)], batch=key), log.write([an_end(second)], batch=key))
    assert len(await subjects(bus)) == 1
    for job, settled in ((first, {0}), (second, {0}), (third, set())):
        assert await log.settled(job, job.recipients) == settled
        assert set(await DispositionLog(bus).known(job.envelope, key)) == settled
    await log.write([an_end(third)], batch=key)
    assert await log.settled(third, third.recipients) == {0}
    (subject, *_) = await subjects(bus)
    entry = await bus.last(DISPOSITIONS, subject)
    assert entry is not None
    assert {end.id for end in read_dispositions(entry.subject, entry.data)} <= {first.queue_id, second.queue_id, third.queue_id}


async def test_the_newest_counts_wherever_it_lies(bus: Bus) -> None:
    key = new_queue_id()
    job, log = a_job(2, batch=key), DispositionLog(bus)
    await log.write([an_end(job, 0), an_end(job, 1, DispositionKind.HELD)], batch=key)
    assert await log.settled(job, job.recipients) == {0, 1}
    await log.write([an_end(job, 1, DispositionKind.RELEASED)])
    assert await log.settled(job, job.recipients) == {0}
    await log.write([an_end(job, 1, generation=1)])
    assert await log.settled(job, job.recipients) == {0, 1}


async def test_written_twice_it_is_stored_once(bus: Bus) -> None:
    job, log = a_job(3, batch="key"), DispositionLog(bus)
    ends = [an_end(job, n) for n in range(3)]
    await log.write(ends, batch="key")
    await log.write(ends, batch="key")
    await log.write(ends[:1])
    await log.write(ends[:1])
    assert sorted((await subjects(bus)).values()) == [1, 1]


async def test_whoever_shares_one_hears_that_it_failed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def publish(*_: object) -> None:
        raise TransientError(451, "4.3.0", "away", reason="away")

    log = DispositionLog(bus)
    monkeypatch.setattr(bus, "publish", publish)
    job, other = a_job(batch="key"), a_job(batch="key")
    writing = [log.write([an_end(each)], batch="key") for each in (job, other)]
    assert [type(told) for told in await asyncio.gather(*writing, return_exceptions=True)] == [TransientError] * 2
    monkeypatch.undo()
    await log.write([an_end(job)], batch="key")
    assert await log.settled(job, job.recipients) == {0}


async def test_one_that_is_interrupted_does_not_interrupt_the_others(bus: Bus) -> None:
    log, job, other = DispositionLog(bus), a_job(batch="key"), a_job(batch="key")
    interrupted = asyncio.create_task(log.write([an_end(job)], batch="key"))
    going_on = asyncio.create_task(log.write([an_end(other)], batch="key"))
    await asyncio.sleep(0)
    interrupted.cancel()
    async with asyncio.timeout(10):
        await going_on
    assert await log.settled(other, other.recipients) == {0}


async def test_a_disposition_that_cannot_be_read_keeps_the_mail_waiting(bus: Bus) -> None:
    """It may be of a version to come: neither settled nor open, so that nobody sends a second copy or forgets the first."""
    job, other = a_job(), a_job(batch="key")
    await bus.publish(DISPOSITIONS, f"disposition.{job.queue_id}.0", b'{"version":2,"end":"new"}', "later")
    await bus.publish(DISPOSITIONS, "disposition.key.2-ab", b'{"version":2,"dispositions":[]}', "later still")
    for each in (job, other):
        with pytest.raises(TransientError, match="contract version 2"):
            await DispositionLog(bus).settled(each, each.recipients)
    unread = a_job()
    assert await DispositionLog(bus).settled(unread, unread.recipients) == frozenset()
