"""Jobs that came in one batch: each to its own end, let go together, and nobody gets a second copy for the sake of another."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.smart_host import ReceivedMessage
from postern_core.bus import Delivered
from postern_core.bus.topology import DEFERRED, DISPOSITIONS
from postern_core.policy import RetrySchedule
from postern_delivery import first_try
from postern_delivery.attempt import Attempts
from postern_delivery.store.database import Database
from postern_delivery.store.repository import QueueRepository

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack

RECIPIENTS = [f"{name}@relay.example" for name in "abcd"]
RARE = RetrySchedule(intervals_s=(3600,), delay_notice_s=None)


def copies(stack: Stack) -> Counter[str]:
    return Counter(recipient for message in stack.smart_host.messages if message.reverse_path for recipient in message.recipients)


async def test_all_of_a_batch_are_delivered_and_written_down_together(stack: Stack) -> None:
    jobs = await stack.send_batch(*RECIPIENTS)
    await stack.outbound_is_empty()
    assert copies(stack) == Counter(RECIPIENTS)
    assert await stack.delivered(jobs) == set(RECIPIENTS)
    assert (await stack.api.stream_state(DISPOSITIONS))["messages"] < len(jobs)


async def test_each_member_comes_to_its_own_end(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    await stack.set_policy(schedule=RARE)
    fates = {RECIPIENTS[1]: "550 5.1.1 no", RECIPIENTS[2]: "451 busy"}
    monkeypatch.setattr(stack.smart_host, "rcpt_reply", lambda address: fates.get(address, "250 ok"))
    jobs = await stack.send_batch(*RECIPIENTS)
    await stack.outbound_is_empty()
    assert await stack.delivered(jobs) == {RECIPIENTS[0], RECIPIENTS[3]}
    assert await stack.dispositions(jobs[1]) == {RECIPIENTS[1]: "bounced"}
    assert [row.queue_id for row in (await stack.queued()).rows] == [jobs[2].queue_id]
    await stack.holds(DEFERRED, 1)


async def test_a_member_that_waited_ends_later(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = {RECIPIENTS[0]: ["451 busy"]}
    monkeypatch.setattr(
        stack.smart_host, "rcpt_reply", lambda address: (replies.get(address, []) and replies[address].pop()) or "250 ok"
    )
    jobs = await stack.send_batch(*RECIPIENTS)
    await stack.queued(0)

    async def all_delivered() -> bool:
        return await stack.delivered(jobs) == set(RECIPIENTS)

    await stack.until(all_delivered)
    await stack.holds(DEFERRED, 0)
    assert copies(stack) == Counter(RECIPIENTS)


async def test_a_death_while_one_is_under_way_repeats_only_that_one(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    record, hanging = stack.smart_host.record, asyncio.Event()

    async def one_hangs(message: ReceivedMessage) -> None:
        if message.recipients == (RECIPIENTS[2],):
            hanging.set()
            await asyncio.Event().wait()
        await record(message)

    with monkeypatch.context() as patch:
        patch.setattr(stack.smart_host, "record", one_hangs)
        jobs = await stack.send_batch(*RECIPIENTS)
        await hanging.wait()

        async def others_are_written_down() -> bool:
            return len(await stack.delivered(jobs)) == 3

        await stack.until(others_are_written_down)
        await stack.kill()
    await stack.start()
    await stack.outbound_is_empty()
    assert copies(stack) == Counter(RECIPIENTS)
    assert await stack.delivered(jobs) == set(RECIPIENTS)


async def test_a_death_before_the_ack_repeats_none(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = asyncio.Event()

    async def ack(_: Delivered) -> None:
        reached.set()
        await asyncio.Event().wait()

    await stack.set_policy(schedule=RARE)
    monkeypatch.setattr(stack.smart_host, "rcpt_reply", lambda address: "451 busy" if address == RECIPIENTS[1] else "250 ok")
    with monkeypatch.context() as patch:
        patch.setattr(Delivered, "ack", ack)
        jobs = await stack.send_batch(*RECIPIENTS)
        async with asyncio.timeout(10):
            await reached.wait()
        await stack.kill()
    await stack.start()
    await stack.outbound_is_empty()
    assert copies(stack) == Counter(set(RECIPIENTS) - {RECIPIENTS[1]})
    assert (await stack.queue()).total == 1
    assert await stack.delivered(jobs) == set(RECIPIENTS) - {RECIPIENTS[1]}


async def test_poison_is_set_aside_and_its_batch_is_delivered_once(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Attempts.run

    async def run(attempts: Attempts, job: Any, recipients: Any, *more: Any) -> Any:
        if recipients[0].address == RECIPIENTS[1]:
            raise RuntimeError("nobody thought of this")
        return await real(attempts, job, recipients, *more)

    monkeypatch.setattr(Attempts, "run", run)
    monkeypatch.setattr(first_try, "_FAULT_PAUSES_S", (0.05,))
    jobs = await stack.send_batch(*RECIPIENTS)
    await stack.outbound_is_empty()
    [row] = (await stack.queue()).rows
    assert (row.queue_id, row.state.value) == (jobs[1].queue_id, "frozen")
    assert copies(stack) == Counter(set(RECIPIENTS) - {RECIPIENTS[1]})


async def test_a_stop_hands_the_whole_batch_back(stack: Stack) -> None:
    stack.settings = stack.settings.model_copy(update={"drain_s": 0.5})
    await stack.stop()
    await stack.start()
    stack.smart_host.slow(30)
    await stack.send_batch(*RECIPIENTS)

    async def connected() -> bool:
        return stack.smart_host.connections > 0

    await stack.until(connected)
    await stack.stop()
    stack.smart_host.behave()
    await stack.start()
    await stack.outbound_is_empty()
    assert copies(stack) == Counter(RECIPIENTS)


async def test_the_row_of_a_member_that_was_settled_before_a_crash_goes(stack: Stack) -> None:
    """The database is older than the stream, restored from a backup: a row does not know the batch in which its job came."""
    await stack.smart_host.stop()
    jobs = await stack.send_batch(*RECIPIENTS[:2])
    await stack.queued(2)
    repository = QueueRepository(Database(stack.settings.database()))
    rows = [row for job in jobs if (row := await repository.get(job.id)) is not None]
    await stack.smart_host.start()
    await stack.holds(DEFERRED, 0)
    await stack.queued(0)
    for row in rows:
        await repository.insert(row)
    await stack.queued(0)
    assert copies(stack) == Counter(RECIPIENTS[:2])


async def test_one_that_is_slow_takes_one_place_and_not_those_of_its_batch(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    record, go_on = stack.smart_host.record, asyncio.Event()

    async def one_hangs(message: ReceivedMessage) -> None:
        if message.recipients == (RECIPIENTS[2],):
            await go_on.wait()
        await record(message)

    monkeypatch.setattr(stack.smart_host, "record", one_hangs)
    stack.settings = stack.settings.model_copy(update={"concurrency": len(RECIPIENTS)})
    await stack.stop()
    await stack.start()
    jobs = await stack.send_batch(*RECIPIENTS)

    async def others_are_written_down() -> bool:
        return len(await stack.delivered(jobs)) == len(RECIPIENTS) - 1

    await stack.until(others_are_written_down)
    behind = await stack.send("behind@relay.example")
    assert await stack.dispositions(behind, timeout=8) == {"behind@relay.example": "delivered"}
    go_on.set()
    await stack.outbound_is_empty()
    assert copies(stack) == Counter([*RECIPIENTS, "behind@relay.example"])
