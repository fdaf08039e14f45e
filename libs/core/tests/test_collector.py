"""A reader that settles many messages at once: what is in its hands, and when more comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fixtures.broker import Broker
from postern_core.batch import MOST_MEMBERS
from postern_core.broker.names import PROVISIONER
from postern_core.bus import Bus, Collector, Delivered
from postern_core.bus.topology import INTAKE

PATIENCE_S = 20  # well under the ack-wait of 30 s: what comes back later than this was not handed back


class Reader:
    """Notes what it takes, and settles it when told to."""

    def __init__(self, bus: Bus, concurrency: int = 100 * MOST_MEMBERS) -> None:
        self.taken: list[Delivered] = []
        self._changed = asyncio.Event()
        self.collector = Collector(bus, INTAKE, "screener", self._take, concurrency=concurrency)

    def _take(self, delivered: Delivered) -> None:
        self.taken.append(delivered)
        self._changed.set()

    async def has(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.taken) < count:
                self._changed.clear()
                await self._changed.wait()

    async def settle(self) -> None:
        for delivered in self.taken:
            await delivered.ack_unconfirmed()
            self.collector.done(delivered)

    @asynccontextmanager
    async def running(self, drain_s: float = 5) -> AsyncIterator[asyncio.Event]:
        stop = asyncio.Event()
        async with asyncio.timeout(2 * PATIENCE_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(self.collector.run(stop, drain_s))
            yield stop
            stop.set()


@pytest.fixture
async def gate(broker: Broker) -> AsyncIterator[Bus]:
    bus = await broker.connect("ingress-anon")
    yield bus
    await bus.close()


@pytest.fixture
async def screener(broker: Broker) -> AsyncIterator[Bus]:
    bus = await broker.connect("screener")
    yield bus
    await bus.close()


async def put(gate: Bus, *names: str) -> None:
    for name in names:
        await gate.publish(INTAKE, f"intake.anon.{name}", name.encode(), name)


async def counts(broker: Broker) -> tuple[int, int]:
    """Messages in somebody's hands, and those that wait."""
    provisioner = await broker.connect(PROVISIONER)
    info = await provisioner.consumer_info(INTAKE, "screener")
    await provisioner.close()
    return info["num_ack_pending"], info["num_pending"]


async def test_more_comes_as_what_was_taken_is_settled(gate: Bus, screener: Bus) -> None:
    reader = Reader(screener, concurrency=3)
    await put(gate, *(f"m{k}" for k in range(5)))
    async with reader.running():
        await reader.has(3)
        assert reader.collector.in_flight == 3
        await reader.settle()
        await reader.has(5)
        await reader.settle()
    assert [each.data for each in reader.taken] == [b"m0", b"m1", b"m2", b"m3", b"m4"]
    assert reader.collector.in_flight == 0


async def test_a_sweep_brings_what_there_is_and_nothing_more_until_that_is_settled(
    broker: Broker, gate: Bus, screener: Bus
) -> None:
    reader = Reader(screener)
    await put(gate, *(f"m{k}" for k in range(30)))
    reader.collector.sweep(0)
    async with reader.running():
        await reader.has(30)
        await put(gate, "late")
        assert await counts(broker) == (30, 1)  # nobody asks for it
        await reader.settle()
        await reader.has(31)
        # it found nothing any more, and watches again
        await put(gate, "later")
        await reader.has(32)
        await reader.settle()


async def test_a_rest_that_has_begun_is_not_begun_anew(gate: Bus, screener: Bus) -> None:
    """Was: a reader of two streams called for a sweep of both at each commit, and what the one brought kept the other from ever being read."""
    reader = Reader(screener)
    await put(gate, "m")
    reader.collector.sweep(0.3)
    async with reader.running():
        async with asyncio.timeout(PATIENCE_S):
            while not reader.taken:
                reader.collector.sweep(0.3)
                await asyncio.sleep(0.05)
        await reader.settle()


async def test_a_drain_waits_for_what_was_taken(broker: Broker, gate: Bus, screener: Bus) -> None:
    reader = Reader(screener)
    await put(gate, "m")
    async with reader.running(drain_s=PATIENCE_S) as stop:
        await reader.has(1)
        stop.set()
        await asyncio.sleep(0)
        await reader.settle()
    assert await counts(broker) == (0, 0)
    assert reader.taken[0].tries == 1


async def test_a_drain_hands_back_what_is_not_settled_in_time(gate: Bus, screener: Bus, broker: Broker) -> None:
    reader, bus = Reader(screener), await broker.connect("screener")
    await put(gate, "m")
    async with reader.running(drain_s=0.05):
        await reader.has(1)
    other = Reader(bus)
    async with other.running():
        await other.has(1)
        assert other.taken[0].tries == 2
        await other.settle()
    await bus.close()
