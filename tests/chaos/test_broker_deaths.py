"""The broker is killed again and again, and its disk is copied at any moment as a power cut would leave it: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
from pathlib import Path

import pytest

from chaos.publisher import Publisher, take_all
from fixtures.broker import Broker
from postern_core.bus import Consumer, Delivered
from postern_core.bus.topology import INTAKE
from postern_core.ids import QueueId

DEATHS = 50
POWER_CUTS = 5


@pytest.mark.timeout(300)
async def test_fifty_deaths_under_load_lose_nothing_and_leave_no_consumer_deaf(broker: Broker) -> None:
    gates = [await broker.connect("ingress-anon") for _ in range(2)]
    publishers = [Publisher(gate) for gate in gates]
    screener = await broker.connect("screener")
    stop = asyncio.Event()
    taken: set[QueueId] = set()
    progress = asyncio.Condition()

    async def take(delivered: Delivered) -> None:
        await delivered.ack()
        async with progress:
            taken.add(QueueId(delivered.subject.rpartition(".")[2]))
            progress.notify_all()

    async with asyncio.timeout(280), asyncio.TaskGroup() as tasks:
        for publisher in publishers:
            tasks.create_task(publisher.run(stop))
        tasks.create_task(Consumer(screener, INTAKE, "screener", take, concurrency=50).run(stop, 5))
        for _ in range(DEATHS):
            before = len(taken)
            await asyncio.gather(*(publisher.another(5) for publisher in publishers))
            async with progress:
                await progress.wait_for(lambda before=before: len(taken) > before)  # type: ignore[misc]
            await asyncio.to_thread(broker.restart, signal.SIGKILL)
        stop.set()
    acknowledged = set().union(*(publisher.acknowledged for publisher in publishers))
    for bus in (*gates, screener):
        await bus.close()
    left = acknowledged - taken
    assert left <= await take_all(await broker.connect("screener"), left)


@pytest.mark.timeout(240)
async def test_a_disk_that_is_cut_off_at_any_moment_holds_what_was_acknowledged_before(tmp_path: Path) -> None:
    """A copy of the store, made while the broker writes to it, is torn as the disk of a machine without power is."""
    moments = random.Random(3)
    broker = Broker(tmp_path / "broker")
    broker.start()
    copies: list[tuple[Path, set[QueueId]]] = []
    try:
        await broker.provision()
        gate = await broker.connect("ingress-anon")
        publisher, stop = Publisher(gate), asyncio.Event()
        async with asyncio.timeout(200), asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run(stop))
            for number in range(POWER_CUTS):
                await publisher.another(moments.randint(50, 400))
                before, copy = set(publisher.acknowledged), tmp_path / f"copy{number}"
                await asyncio.to_thread(_copy_torn, broker.directory, copy)
                copies.append((copy, before))
            stop.set()
        await gate.close()
    finally:
        broker.stop()
    for copy, before in copies:
        again = Broker(copy)
        again.start()
        try:
            assert before <= await take_all(await again.connect("screener"), before)
        finally:
            again.stop()


def _copy_torn(source: Path, target: Path) -> None:
    """File after file, whatever happens to them meanwhile; what vanishes under our hands was temporary."""
    for file in source.rglob("*"):
        if not file.is_file():
            continue
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(file, place)
        except FileNotFoundError:
            place.unlink(missing_ok=True)
