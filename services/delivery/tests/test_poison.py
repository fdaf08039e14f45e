"""Mail that delivery cannot handle, for a reason that nobody foresaw: tried a few times, then set aside with that reason, never lost, and in
an administrator's hands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postern_core.bus import BodyStore
from postern_core.bus.topology import BODIES, DEFERRED, OUTBOUND, deferred_subject
from postern_core.control import DeliveryVerb, QueueRow, QueueState
from postern_core.errors import TransientError
from postern_core.ids import new_queue_id
from postern_core.policy import RetrySchedule
from postern_delivery import first_try
from postern_delivery.attempt import Attempts
from postern_delivery.deferral import Deferral
from postern_delivery.poison import MOST_FAULTS
from postern_delivery.retry_attempt import RetryAttempt

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack

MESSAGE = b"Subject: hello\r\n\r\nhello\r\n"
RARE = RetrySchedule(intervals_s=(3600,), delay_notice_s=None, expiry_s=7200)


class Fault:
    """Every attempt at mail to `poison@…` fails as no code foresees, until `mended`."""

    def __init__(self, patch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.seen = 0
        self.mended = False
        real = Attempts.run
        error = error or RuntimeError("nobody thought of this")

        async def run(attempts: Attempts, job: Any, recipients: Any, *more: Any) -> Any:
            if not self.mended and any(recipient.address.startswith("poison@") for recipient in recipients):
                self.seen += 1
                raise error
            return await real(attempts, job, recipients, *more)

        patch.setattr(Attempts, "run", run)
        patch.setattr(first_try, "_FAULT_PAUSES_S", (0.05,))


async def frozen(stack: Stack) -> QueueRow:
    """The one row, once it is frozen."""
    found: list[QueueRow] = []

    async def is_frozen() -> bool:
        found[:] = (await stack.queue()).rows
        return [row.state for row in found] == [QueueState.FROZEN]

    await stack.until(is_frozen)
    return found[0]


async def test_a_first_try_that_fails_for_an_unknown_reason_is_set_aside(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: tried again every five seconds, for ever."""
    fault = Fault(monkeypatch)
    job = await stack.send("poison@relay.example", "other@relay.example")
    innocent = await stack.send("a@relay.example")
    row = await frozen(stack)
    assert f"delivery failed {MOST_FAULTS} times, at last: RuntimeError: nobody thought of this" in row.last_reply
    assert row.recipients == ("poison@relay.example", "other@relay.example")
    assert fault.seen == MOST_FAULTS
    assert await stack.dispositions(innocent) == {"a@relay.example": "delivered"}
    await stack.outbound_is_empty()
    await stack.holds(DEFERRED, 1)
    fault.mended = True
    assert await stack.change(DeliveryVerb.QUEUE_RESUME, job_id=job.id) == 1
    await stack.change(DeliveryVerb.QUEUE_RETRY, job_id=job.id)
    assert set((await stack.dispositions(job)).values()) == {"delivered"}
    await stack.holds(DEFERRED, 0)


async def test_tries_for_a_known_reason_convict_nobody(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """OUTBOUND or DEFERRED were full for long: the one fault behind that is not the fourth."""
    monkeypatch.setattr(first_try, "_POSTPONES_S", (0.05,))
    fault = Fault(monkeypatch, TransientError(452, "4.3.1", "later", reason="a stream is full"))
    job = await stack.send("poison@relay.example")

    async def tried_often() -> bool:
        return fault.seen > MOST_FAULTS

    await stack.until(tried_often)
    fault.mended = True
    failed: list[str] = []
    real = Attempts.run

    async def once(attempts: Attempts, job: Any, *more: Any) -> Any:
        if not failed:
            failed.append(job.id)
            raise RuntimeError("once only")
        return await real(attempts, job, *more)

    monkeypatch.setattr(Attempts, "run", once)
    assert await stack.dispositions(job) == {"poison@relay.example": "delivered"}
    assert (await stack.queue()).total == 0


async def test_a_job_that_cannot_be_set_aside_stays_where_it_is(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = Fault(monkeypatch)
    refused: list[str] = []
    real = Deferral.defer

    async def defer(deferral: Deferral, job: Any, *more: Any, **options: Any) -> None:
        if len(refused) < 2:
            refused.append(job.id)
            raise RuntimeError("nor of this")
        await real(deferral, job, *more, **options)

    monkeypatch.setattr(Deferral, "defer", defer)
    await stack.send("poison@relay.example")
    await frozen(stack)
    assert len(refused) == 2
    assert fault.seen == MOST_FAULTS + 2
    await stack.holds(OUTBOUND, 0)


async def test_a_row_whose_attempts_fail_for_an_unknown_reason_is_frozen(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: tried again at the end of each lease, for ever."""
    stack.smart_host.defer_rcpt("poison@relay.example")
    job = await stack.send("poison@relay.example")
    await stack.queued()
    await stack.outbound_is_empty()
    fault = Fault(monkeypatch)
    row = await frozen(stack)
    assert f"set aside: delivery failed {MOST_FAULTS} times, at last: RuntimeError" in row.last_reply
    await stack.holds(DEFERRED, 1)
    fault.mended = True
    stack.smart_host.behave()
    assert await stack.change(DeliveryVerb.QUEUE_RESUME, job_id=job.id) == 1
    assert await stack.dispositions(job) == {"poison@relay.example": "delivered"}


async def test_a_removal_that_fails_for_an_unknown_reason_leaves_a_row_that_can_be_removed_otherwise(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its NDR cannot be made, say: deleting it without one still works."""
    await stack.set_policy(schedule=RARE)
    stack.smart_host.defer_rcpt("a@relay.example")
    job = await stack.send("a@relay.example")
    await stack.queued()
    with monkeypatch.context() as patch:

        async def remove(*_: object) -> Any:
            raise RuntimeError("nobody thought of this")

        patch.setattr(RetryAttempt, "_remove", remove)
        await stack.change(DeliveryVerb.QUEUE_DELETE, job_id=job.id, with_ndr=True)
        await frozen(stack)
    await stack.change(DeliveryVerb.QUEUE_DELETE, job_id=job.id, actor="alice")
    assert await stack.dispositions(job) == {"a@relay.example": "deleted"}
    await stack.queued(0)


async def lose_mail(stack: Stack, job_id: str) -> None:
    stored = await stack._bus.last(DEFERRED, deferred_subject(job_id))
    assert stored is not None
    await stack._bus.delete(DEFERRED, stored.sequence)


@pytest.mark.parametrize(("with_ndr", "kind"), [(False, "deleted"), (True, "bounced")])
async def test_a_row_whose_mail_is_gone_can_be_removed(stack: Stack, with_ndr: bool, kind: str) -> None:
    """Was: the removal was forgotten, and the row set aside once more."""
    await stack.set_policy(schedule=RARE)
    stack.smart_host.defer_rcpt("a@relay.example")
    stack.smart_host.defer_rcpt("b@relay.example")
    job = await stack.send("a@relay.example", "now@relay.example", "b@relay.example")
    await stack.queued()
    await stack.outbound_is_empty()
    await lose_mail(stack, job.id)
    assert "missing" in (await frozen(stack)).last_reply
    assert await stack.change(DeliveryVerb.QUEUE_DELETE, job_id=job.id, actor="alice", with_ndr=with_ndr) == 1
    ends = await stack.ends(job)
    assert [(end.n, end.kind.value) for end in ends] == [(0, kind), (1, "delivered"), (2, kind)]
    assert {end.recipients_total for end in ends} == {3}
    assert "alice" in ends[0].detail
    await stack.queued(0)
    if with_ndr:
        ndr = (await stack.smart_host.wait_for(2))[1]
        assert (ndr.reverse_path, ndr.recipients) == ("", ("me@sender.example",))
        assert b"b@relay.example" in ndr.data


async def test_a_row_whose_body_is_gone_can_be_removed(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    queue_id = new_queue_id()
    stored = await BodyStore(stack.api, "api", 1024).put(queue_id, MESSAGE)
    stack.smart_host.defer_rcpt("a@relay.example")
    job = await stack.send("a@relay.example", queue_id=queue_id, stored=stored)
    await stack.queued()
    await stack.outbound_is_empty()
    await stack._bus.purge(BODIES, f"body.{stored.name}.*")
    await stack.change(DeliveryVerb.QUEUE_RETRY)
    assert "set aside" in (await frozen(stack)).last_reply
    assert await stack.change(DeliveryVerb.QUEUE_DELETE, job_id=job.id) == 1
    assert await stack.dispositions(job) == {"a@relay.example": "deleted"}
    await stack.queued(0)
    await stack.holds(DEFERRED, 0)


async def test_an_entry_that_cannot_be_read_waits_for_a_newer_program_or_an_administrator(stack: Stack) -> None:
    await stack.set_policy(schedule=RARE)
    stack.smart_host.defer_rcpt("a@relay.example")
    job = await stack.send("a@relay.example")
    await stack.queued()
    await lose_mail(stack, job.id)
    await stack._bus.publish(DEFERRED, deferred_subject(job.id), b"of a newer program", "newer")
    await stack.change(DeliveryVerb.QUEUE_RETRY)

    async def looked_at() -> bool:
        return (await stack.queue()).rows[0].state is QueueState.LEASED

    await stack.until(looked_at)
    assert await stack.change(DeliveryVerb.QUEUE_DELETE, job_id=job.id) == 1
    assert await stack.dispositions(job) == {"a@relay.example": "deleted"}
    await stack.queued(0)
    await stack.holds(DEFERRED, 0)
