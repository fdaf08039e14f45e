"""The broker hangs up on a client for which more than 64 MiB wait. However much large mail there is, and however long we are busy, that much never waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from fixtures.broker import TEST_LIMITS, Broker
from postern_core.broker.names import PROVISIONER
from postern_core.bus import Bus, Consumer, Delivered
from postern_core.bus.broker_check import read_monitor
from postern_core.bus.provision import ensure_route
from postern_core.bus.topology import DEFERRED, GIB, MIB, OUTBOUND, deferred_subject, delivery_consumer
from postern_core.bus.window import HEAD_BYTES, LEAST_PENDING_BYTES, PULLED_BYTES, READ_BYTES, Window, reads_at_once
from postern_core.settings import DEFAULT_INLINE_LIMIT_BYTES, BusSettings

LARGE = os.urandom(1_150_000)  # the inline limit may be set to 4 MiB
BUSY_S = 1.0  # long enough for the broker to send all that it may


class _Varz(msgspec.Struct):
    slow_consumers: int
    max_pending: int


class Crowd:
    """Routes full of mail, and one connection that pulls all of them."""

    def __init__(self, broker: Broker, bus: Bus) -> None:
        self.broker, self.bus = broker, bus
        self.reconnected = 0
        bus.on_reconnect.add(self._count)

    def _count(self) -> None:
        self.reconnected += 1

    async def fill(self, routes: int, each: int, bodies: tuple[bytes, ...]) -> dict[str, int]:
        """`each` messages for every route, of the sizes of `bodies` in turn. Returns what was put in."""
        provisioner = await self.broker.connect(PROVISIONER)
        for route in range(routes):
            await ensure_route(provisioner, f"r{route}", TEST_LIMITS)
        await provisioner.close()
        names = [(route, n) for route in range(routes) for n in range(each)]
        for start in range(0, len(names), 20):
            await asyncio.gather(
                *(
                    self.bus.publish(OUTBOUND, f"outbound.r{route}.m{n}", bodies[n % len(bodies)], f"{route}.{n}")
                    for route, n in names[start : start + 20]
                )
            )
        return {f"r{route}": each for route in range(routes)}

    async def take_all(self, expected: dict[str, int], *, busy_every: int) -> Counter[str]:
        """Pull until all has come, with the loop standing still at the first message of every `busy_every`."""
        taken: Counter[str] = Counter()
        stop = asyncio.Event()

        async def handle(delivered: Delivered) -> None:
            if not taken.total() % busy_every:
                time.sleep(BUSY_S)  # noqa: ASYNC251  (that is the point)
            taken[delivered.subject.split(".")[1]] += 1
            await delivered.ack()
            if taken.total() == sum(expected.values()):
                stop.set()

        consumers = [Consumer(self.bus, OUTBOUND, delivery_consumer(route), handle, concurrency=40) for route in expected]
        async with asyncio.timeout(100), asyncio.TaskGroup() as tasks:
            for consumer in consumers:
                tasks.create_task(consumer.run(stop, 5))
        return taken

    def hung_up(self) -> int:
        """How many clients the broker has cut off."""
        return read_monitor(f"{self.broker.monitor_url}/varz", _Varz).slow_consumers


@pytest.fixture
async def crowd(tmp_path: Path) -> AsyncIterator[Crowd]:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        await broker.provision(replace(TEST_LIMITS, outbound_bytes=GIB))
        bus = await broker.connect("delivery")
        yield Crowd(broker, bus)
        await bus.close()
    finally:
        broker.stop()


@pytest.mark.parametrize(("routes", "each"), [(1, 100), (8, 40), (60, 4)])
async def test_nobody_is_hung_up_on_for_large_mail_that_waits(crowd: Crowd, routes: int, each: int) -> None:
    """Was: all of it was asked for at once, and the broker cut off each new connection like the one before."""
    expected = await crowd.fill(routes, each, (LARGE,))
    assert await crowd.take_all(expected, busy_every=80) == expected
    assert (crowd.hung_up(), crowd.reconnected) == (0, 0)


async def test_small_mail_between_large_comes_through(crowd: Crowd) -> None:
    expected = await crowd.fill(30, 10, (LARGE, b"small", b"small", os.urandom(200_000)))
    assert await crowd.take_all(expected, busy_every=100) == expected
    assert (crowd.hung_up(), crowd.reconnected) == (0, 0)


async def test_nobody_is_hung_up_on_for_what_it_reads(crowd: Crowd) -> None:
    """Was: every lease of the retry queue read its message at once, ten for each route."""
    for n in range(100):
        await crowd.bus.publish(DEFERRED, deferred_subject(f"j{n}"), LARGE, f"j{n}")
    reads = [asyncio.create_task(crowd.bus.last(DEFERRED, deferred_subject(f"j{n}"))) for n in range(100)]
    await asyncio.sleep(0.01)
    time.sleep(BUSY_S)  # noqa: ASYNC251
    stored = await asyncio.gather(*reads)
    assert all(each is not None and each.data == LARGE for each in stored)
    assert (crowd.hung_up(), crowd.reconnected) == (0, 0)


def test_all_that_may_wait_is_less_than_a_broker_lets_wait(session_broker: Broker) -> None:
    largest = max(entry.le for entry in BusSettings.model_fields["inline_limit_bytes"].metadata if hasattr(entry, "le"))
    for limit in (1024, DEFAULT_INLINE_LIMIT_BYTES, largest):
        assert reads_at_once(limit) * (limit + HEAD_BYTES) <= READ_BYTES
    turn = policy = 8 * 1024 * 1024 - 500_000
    assert PULLED_BYTES + READ_BYTES + turn + policy <= LEAST_PENDING_BYTES < 64 * MIB
    # the configuration that we write says nothing of it
    assert read_monitor(f"{session_broker.monitor_url}/varz", _Varz).max_pending == 64 * MIB


def test_consumers_share_what_may_be_pulled() -> None:
    window = Window()
    assert window.share_bytes == PULLED_BYTES
    consumers = [object() for _ in range(3)]
    for consumer in consumers:
        window.join(consumer)
    assert window.share_bytes == PULLED_BYTES // 3
    window.leave(consumers[0])
    assert window.share_bytes == PULLED_BYTES // 2


def test_turns_go_round_in_the_order_of_asking() -> None:
    window, woken = Window(), []
    a, b, c = "a", "b", "c"

    def asks(consumer: str) -> bool:
        return window.take_turn(consumer, lambda: woken.append(consumer))

    assert asks(a)
    assert asks(a)  # still
    assert not asks(b)
    assert not asks(c)
    assert not asks(b)  # asked before: it has one place only
    window.end_turn(b)  # it has none to end
    assert woken == []
    window.end_turn(a)
    assert woken == [b]
    assert not asks(a)
    assert asks(b)
    window.leave(c)  # before it was its turn
    window.leave(b)
    assert woken == [b, a]
    assert asks(a)
    window.end_turn(a)
    assert asks(c)
