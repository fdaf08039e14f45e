"""Death at each step between a job and its end: nothing is lost, and nobody whose end was written down gets another copy.

A step is a durable change: a publish, a deletion, an acknowledgement, a row. Delivery dies just before it, with everything that it had
done until then, and is started again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.broker import TEST_LIMITS
from fixtures.smart_host import ReceivedMessage
from postern_core.broker.names import PROVISIONER
from postern_core.bus import BodyStore, Bus, Delivered, DispositionLog
from postern_core.bus.provision import ensure_route
from postern_core.bus.topology import BODIES, DEFERRED, DISPOSITIONS, EVENTS, OUTBOUND
from postern_core.disposition import Disposition, DispositionKind
from postern_core.ids import new_queue_id
from postern_core.policy import RetrySchedule
from postern_delivery import feeds
from postern_delivery.retry import RetryLoop
from postern_delivery.store.repository import QueueRepository

if TYPE_CHECKING:
    from services.delivery.tests.conftest import Stack

BODY = b"Message-ID: <m1@example.org>\r\nSubject: hello\r\n\r\nhello\r\n"
ROUTE = "brisk"


class Steps:
    """Counts the steps of a delivery by name, and stops before the `fatal` one for ever."""

    def __init__(self, fatal: tuple[str, int]) -> None:
        self.counted: Counter[str] = Counter()
        self.reached = asyncio.Event()
        self._fatal = fatal

    async def take(self, name: str) -> None:
        self.counted[name] += 1
        if (name, self.counted[name]) == self._fatal:
            self.reached.set()
        if self.reached.is_set():
            await asyncio.Event().wait()  # nothing else may change while the end is being arranged

    def watch(self, bus: Bus, patch: pytest.MonkeyPatch) -> None:
        def counting(owner: object, method: str, name: Callable[[tuple[Any, ...]], str]) -> None:
            real = getattr(owner, method)

            async def step(*arguments: Any, **more: Any) -> Any:
                if name(arguments) != f"publish {EVENTS}":
                    await self.take(name(arguments))
                return await real(*arguments, **more)

            patch.setattr(owner, method, step)

        counting(bus, "publish", lambda arguments: f"publish {arguments[0]}")
        counting(bus, "delete", lambda arguments: f"delete from {arguments[0]}")
        counting(bus, "purge", lambda arguments: f"purge {arguments[0]}")
        counting(Delivered, "ack", lambda _: "ack")
        counting(QueueRepository, "insert", lambda _: "insert row")
        counting(QueueRepository, "postpone", lambda _: "postpone row")
        counting(QueueRepository, "delete", lambda _: "delete row")


STEPS = [
    (f"publish {DISPOSITIONS}", 1),  # a was delivered
    (f"publish {OUTBOUND}", 1),  # the NDR about b
    (f"publish {DISPOSITIONS}", 2),  # b was bounced
    (f"publish {DEFERRED}", 1),
    ("insert row", 1),
    ("ack", 1),
    ("postpone row", 1),  # c and d are busy once more
    (f"publish {DISPOSITIONS}", 5),  # d was bounced
    ("delete row", 1),
    (f"delete from {DEFERRED}", 1),
    (f"purge {BODIES}", 1),
]


@pytest.mark.parametrize("fatal", STEPS, ids=lambda step: f"{step[0]} {step[1]}")
async def test_a_death_before_any_step_loses_nothing_and_repeats_nothing_that_was_written_down(
    idle_stack: Stack, monkeypatch: pytest.MonkeyPatch, fatal: tuple[str, int]
) -> None:
    stack = idle_stack
    monkeypatch.setattr(feeds, "_KEEP_EVERY_S", 0.3)
    provisioner = await stack.broker.connect(PROVISIONER)
    await ensure_route(provisioner, ROUTE, replace(TEST_LIMITS, delivery_ack_wait=timedelta(seconds=1.5)))
    await provisioner.close()
    await stack.set_policy(
        routes=(stack.route(ROUTE),), default_route=ROUTE, schedule=RetrySchedule(intervals_s=(0.5,), delay_notice_s=None)
    )
    asked: Counter[str] = Counter()
    fates = {"b@relay.example": ["550 5.1.1 no"], "c@relay.example": ["451 busy", "451 busy", "250 ok"]}
    fates["d@relay.example"] = ["451 busy", "451 busy", "550 5.1.1 no"]

    def rcpt_reply(address: str) -> str:
        replies = fates.get(address, ["250 ok"])
        asked[address] += 1
        return replies[min(asked[address], len(replies)) - 1]

    monkeypatch.setattr(stack.smart_host, "rcpt_reply", rcpt_reply)
    queue_id = new_queue_id()
    ref = await BodyStore(stack.api, "api", 10).put(queue_id, BODY)

    stack.settings = stack.settings.model_copy(update={"orphan_grace_s": 1.0})
    await stack.start()
    steps = Steps(fatal)
    with monkeypatch.context() as patch:
        steps.watch(stack._bus, patch)
        patch.setattr(RetryLoop, "_give_back", _never)
        recipients = [f"{name}@relay.example" for name in "abcd"]
        job = await stack.send(*recipients, body=BODY, queue_id=queue_id, stored=ref, route=ROUTE)
        async with asyncio.timeout(20):
            await steps.reached.wait()
        await stack.kill()
    await stack.start()

    ends = dict(zip(recipients, ["delivered", "bounced", "delivered", "bounced"], strict=True))
    assert await stack.dispositions(job) == ends
    await stack.outbound_is_empty()
    await stack.queued(0)
    await stack.holds(DEFERRED, 0)
    await stack.holds(BODIES, 0)
    copies = Counter(r for m in stack.smart_host.messages if m.reverse_path for r in m.recipients)
    in_the_gap = fatal[0] == f"publish {DISPOSITIONS}"  # RFC 1047: taken, and not written down yet
    assert set(copies) == {"a@relay.example", "c@relay.example"}
    assert max(copies.values()) <= (2 if in_the_gap else 1)
    notices = [m.data for m in stack.smart_host.messages if not m.reverse_path]
    for address in ("b@relay.example", "d@relay.example"):
        told = sum(f"Final-Recipient: rfc822; {address}".encode() in notice for notice in notices)
        assert 1 <= told <= 2  # a notice is mail of its own: it may be in that gap just then


async def test_a_death_between_two_transactions_repeats_only_the_one_under_way(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """qmail's rule: a message to ten thousand recipients that was half done goes on in the middle."""
    await stack.set_policy(routes=(stack.route("default", max_recipients=2),))
    record, hanging = stack.smart_host.record, asyncio.Event()

    async def third_hangs(message: ReceivedMessage) -> None:
        if len(stack.smart_host.messages) == 2:
            hanging.set()
            await asyncio.Event().wait()
        await record(message)

    recipients = [f"u{n}@relay.example" for n in range(8)]
    with monkeypatch.context() as patch:
        patch.setattr(stack.smart_host, "record", third_hangs)
        job = await stack.send(*recipients)
        await hanging.wait()
        await stack.kill()
    await stack.start()
    assert set((await stack.dispositions(job)).values()) == {"delivered"}
    assert [m.recipients for m in stack.smart_host.messages] == [tuple(recipients[n : n + 2]) for n in range(0, 8, 2)]


async def test_what_was_delivered_is_not_again_when_the_broker_forgot_that_it_was_given_out(idle_stack: Stack) -> None:
    """A death behind the disposition, and one of the broker: the job comes as if for the first time, to a replica that never had it."""
    stack = idle_stack
    job = await stack.send("a@relay.example", "b@relay.example")
    end = Disposition(
        id=job.queue_id,
        n=0,
        recipients_total=2,
        kind=DispositionKind.DELIVERED,
        gate=job.envelope.gate,
        accepted_at=job.envelope.accepted_at,
        at=job.envelope.accepted_at,
        recipient="a@relay.example",
    )
    await DispositionLog(stack.api).write([end])
    await stack.start()
    await stack.outbound_is_empty()
    assert [m.recipients for m in stack.smart_host.messages] == [("b@relay.example",)]


async def _never(*_: object) -> None:
    """The dead give nothing back."""
