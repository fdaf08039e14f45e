"""Deadlines with one timer for all: everybody's own counts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast

import pytest

from postern_core.bus import EventSink
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import new_queue_id
from postern_core.job import Job
from postern_core.policy import DeliveryPolicy, NextHop, Route
from postern_delivery.attempt import Attempts
from postern_delivery.deadlines import Deadlines
from postern_delivery.outcome import Fate, Results
from postern_delivery.pools import RoutePools
from postern_delivery.routing import RoutingTable

RECIPIENT = Recipient(n=0, address="a@relay.example")


async def limited(deadlines: Deadlines, seconds: float, until: asyncio.Event) -> None:
    async with asyncio.timeout(None) as timeout:
        deadlines.watch(timeout, asyncio.get_running_loop().time() + seconds)
        try:
            await until.wait()
        finally:
            deadlines.let_go(timeout)


async def test_what_was_watched_first_may_end_last() -> None:
    deadlines, never = Deadlines(), asyncio.Event()
    long = asyncio.ensure_future(limited(deadlines, 60, never))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await limited(deadlines, 0.02, never)
    assert not long.done()
    never.set()
    await long


async def test_the_next_one_ends_after_the_first() -> None:
    deadlines, never = Deadlines(), asyncio.Event()
    ends = await asyncio.gather(*(limited(deadlines, s, never) for s in (0.02, 0.06)), return_exceptions=True)
    assert [type(end) for end in ends] == [TimeoutError, TimeoutError]


async def test_what_was_in_time_is_left_alone() -> None:
    deadlines, done = Deadlines(), asyncio.Event()
    done.set()
    await limited(deadlines, 0.02, done)
    await asyncio.sleep(0.1)  # past its deadline


class NeverSends:
    """The connections of a route whose next hop takes for ever."""

    def max_recipients(self, _: str) -> int:
        return 100

    async def send(self, *_: object) -> None:
        await asyncio.Event().wait()


class NoEvents:
    def tell(self, *_: object, **__: object) -> None:
        pass


async def test_an_attempt_that_takes_too_long_ends_in_doubt() -> None:
    route = Route(name="default", next_hops=(NextHop(host="127.0.0.1"),))
    table = RoutingTable.compile(DeliveryPolicy(revision=1, hostname="relay.example.net", routes=(route,)))
    pools = cast("RoutePools", NeverSends())
    attempts = Attempts(lambda: table, pools, cast("EventSink", NoEvents()), limit_s=0.05)
    envelope = Envelope(
        id=new_queue_id(),
        gate=Gate.ANON,
        reverse_path="me@sender.example",
        recipients=(RECIPIENT,),
        size_bytes=1,
        accepted_at=datetime.now(UTC),
        client=Client(address="192.0.2.1"),
    )

    async def settled(_: Results) -> None:
        raise AssertionError("nobody took it")

    job = Job(route="default", envelope=envelope, recipients=envelope.recipients)
    [result] = await attempts.run(job, job.recipients, b"x", settled)
    assert (result.fate, result.in_doubt) == (Fate.RETRY, True)
