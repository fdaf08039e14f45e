"""A cluster of three brokers, every stream kept three times: one node is killed, paused or cut off under load, and no acknowledged message is missing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from chaos.publisher import Publisher, take_all
from fixtures.broker import Broker
from fixtures.cluster import Cluster, running_cluster

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
        taken = await take_all(await cluster.connect("screener"), acknowledged)
        assert acknowledged <= taken
        for gate in gates:
            await gate.close()
