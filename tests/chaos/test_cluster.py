"""A cluster of three brokers, every stream kept three times: one node is killed, paused or cut off under load, and no acknowledged message is missing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fixtures.broker import Broker
from fixtures.cluster import Cluster, running_cluster
from postern_core.bus import Bus, Consumer, Delivered
from postern_core.bus.topology import INTAKE, intake_subject
from postern_core.envelope import Gate
from postern_core.errors import TransientError
from postern_core.ids import QueueId, new_queue_id


class Publisher:
    """Publishes one message after another, each under its id until it is acknowledged or its deadline passes."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.acknowledged: set[QueueId] = set()
        self.refused = 0
        self.progress = asyncio.Condition()

    @property
    def port(self) -> int:
        """Of the node that we are connected to, 0 for none."""
        url = self._bus.client.connected_url
        return url.port or 0 if url is not None else 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            queue_id = new_queue_id()
            try:
                await self._bus.publish(INTAKE, intake_subject(Gate.ANON, queue_id), b"mail", f"{queue_id}:intake", deadline_s=8)
            except TransientError:
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            async with self.progress:
                self.acknowledged.add(queue_id)
                self.progress.notify_all()

    async def another(self, count: int) -> None:
        """Return when `count` more messages have been acknowledged."""
        async with self.progress:
            wanted = len(self.acknowledged) + count
            await self.progress.wait_for(lambda: len(self.acknowledged) >= wanted)


Misfortune = Callable[[Cluster, Broker], Awaitable[None]]


async def _kill(_: Cluster, node: Broker) -> None:
    await asyncio.to_thread(node.stop, signal.SIGKILL)


async def _start_again(_: Cluster, node: Broker) -> None:
    await asyncio.to_thread(node.restart)


async def _pause(_: Cluster, node: Broker) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)


async def _wake(_: Cluster, node: Broker) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("misfortune", "revive"),
    [(_kill, _start_again), (_pause, _wake), (Cluster.cut_off, Cluster.rejoin)],
    ids=["killed", "paused", "cut off"],
)
@pytest.mark.timeout(300)
async def test_each_node_in_turn(tmp_path: Path, misfortune: Misfortune, revive: Misfortune) -> None:
    async with running_cluster(tmp_path) as cluster:
        gates = [await cluster.connect("ingress-anon") for _ in range(3)]
        publishers = [Publisher(gate) for gate in gates]
        stop = asyncio.Event()
        async with asyncio.timeout(240), asyncio.TaskGroup() as tasks:
            for publisher in publishers:
                tasks.create_task(publisher.run(stop))
            for node in cluster.nodes:
                await publishers[0].another(20)
                await misfortune(cluster, node)
                # two of three are a quorum: mail goes on without the node, once a leader is found; whoever is left with the node waits
                elsewhere = [publisher for publisher in publishers if publisher.port != node.port]
                await asyncio.gather(*(publisher.another(20) for publisher in elsewhere))
                await revive(cluster, node)
                await asyncio.gather(*(publisher.another(20) for publisher in publishers))
            stop.set()
        acknowledged = set().union(*(publisher.acknowledged for publisher in publishers))
        taken = await _take_all(await cluster.connect("screener"), acknowledged)
        assert acknowledged <= taken
        for gate in gates:
            await gate.close()


async def _take_all(bus: Bus, expected: set[QueueId]) -> set[QueueId]:
    stop = asyncio.Event()
    taken: set[QueueId] = set()

    async def take(delivered: Delivered) -> None:
        await delivered.ack()
        taken.add(QueueId(delivered.subject.rpartition(".")[2]))
        if expected <= taken:
            stop.set()

    async with asyncio.timeout(90):
        await Consumer(bus, INTAKE, "screener", take, concurrency=50).run(stop, 5)
    await bus.close()
    return taken
