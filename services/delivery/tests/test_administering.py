"""Requests over the control subject, as the api makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from postern_core.control import ControlError, DeliveryVerb, QueueAction, QueuePage, QueueState
from postern_core.disposition import DispositionKind
from postern_core.policy import RetrySchedule

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack

RARE = RetrySchedule(intervals_s=(3600,), delay_notice_s=None, expiry_s=7200)


async def test_hold_resume_and_retry(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    await stack.smart_host.stop()
    job = await stack.send("a@relay.example")
    await stack.queued()
    assert await stack.change(DeliveryVerb.QUEUE_HOLD, queue_id=job.queue_id) == 1
    page = await stack.ask(DeliveryVerb.QUEUE_GET, QueueAction(queue_id=job.queue_id), QueuePage)
    assert [row.state for row in page.rows] == [QueueState.FROZEN]
    await stack.smart_host.start()
    assert await stack.change(DeliveryVerb.QUEUE_RETRY, queue_id=job.queue_id) == 0
    assert await stack.change(DeliveryVerb.QUEUE_RESUME, queue_id=job.queue_id) == 1
    assert await stack.change(DeliveryVerb.QUEUE_RETRY, route="default") == 1
    assert await stack.dispositions(job) == {"a@relay.example": "delivered"}
    await stack.queued(0)


async def test_delete_without_a_word(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    await stack.smart_host.stop()
    job, other = await stack.send("a@relay.example"), await stack.send("b@relay.example")
    await stack.queued(2)
    assert await stack.change(DeliveryVerb.QUEUE_HOLD) == 2
    assert await stack.change(DeliveryVerb.QUEUE_DELETE, job_id=job.id, actor="alice") == 1
    [end] = await stack.ends(job)
    assert end.kind is DispositionKind.DELETED
    assert "alice" in end.detail
    [row] = (await stack.queued(1)).rows
    assert row.queue_id == other.queue_id
    await stack.outbound_is_empty()


async def test_delete_with_an_ndr(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    stack.smart_host.defer_rcpt("a@relay.example")
    job = await stack.send("a@relay.example")
    await stack.queued()
    assert await stack.change(DeliveryVerb.QUEUE_DELETE, job_id=job.id, with_ndr=True, actor="alice") == 1
    [end] = await stack.ends(job)
    assert end.kind is DispositionKind.BOUNCED
    [ndr] = await stack.smart_host.wait_for(1)
    assert (ndr.reverse_path, ndr.recipients) == ("", ("me@sender.example",))
    assert b"Status: 5.0.0" in ndr.data
    assert b"451 4.2.1" in ndr.data
    assert b"in time" not in ndr.data  # its time was not over
    await stack.holds("DEFERRED", 0)


async def test_delete_with_an_ndr_of_mail_that_may_not_be_answered(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    stack.smart_host.defer_rcpt("a@relay.example")
    job = await stack.send("a@relay.example", sender="")
    await stack.queued()
    await stack.change(DeliveryVerb.QUEUE_DELETE, with_ndr=True)
    assert await stack.dispositions(job) == {"a@relay.example": "deleted"}
    assert (await stack.badmail()).total == 0


async def test_lists_are_paged(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    await stack.smart_host.stop()
    jobs = sorted([await stack.send("a@relay.example") for _ in range(3)], key=lambda job: job.id)
    await stack.queued(3)
    first = await stack.queue(limit=2)
    assert ([row.job_id for row in first.rows], first.total) == ([jobs[0].id, jobs[1].id], 3)
    rest = await stack.queue(after=first.rows[-1].job_id)
    assert [row.job_id for row in rest.rows] == [jobs[2].id]
    assert (await stack.queue(route="none")).total == 0


@pytest.mark.parametrize(("verb", "data"), [("no-such-verb", b"{}"), ("queue-list", b"rubbish"), ("queue-hold", b'{"job_id":7}')])
async def test_a_request_that_makes_no_sense_is_answered_with_an_error(stack: Stack, verb: str, data: bytes) -> None:
    answer = await stack.api.request(f"control.delivery.{verb}", data, timeout_s=5)
    assert msgspec.json.decode(answer, type=ControlError).message
