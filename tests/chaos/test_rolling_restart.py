"""Rolling restarts under load: nothing is lost, and no message and no arrival has to wait for longer than the ack-wait and the restarts themselves.

These are the only tests that assert a bound in seconds, since it is this bound that is promised: it is one of waiting, not of speed. What they see is a
tenth of it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest

from chaos.embedded import EmbeddedTarget
from chaos.publisher import Publisher
from chaos.rolling import ACK_WAIT_S, roll, table
from fixtures.cluster import running_cluster
from postern_core.bus import Consumer, Delivered
from postern_core.bus.topology import INTAKE
from postern_core.ids import QueueId


@pytest.mark.timeout(420)
def test_each_service_and_the_broker_in_turn(tmp_path: Path) -> None:
    with EmbeddedTarget(tmp_path / "var") as target:
        rolled = roll(target, rounds=1, rate=20)
    print(table(rolled))
    assert rolled.broken == []
    findings = rolled.findings
    assert (findings.missing, findings.wrong, findings.unexplained, findings.discrepancies) == ([], [], [], [])
    # everybody had a part in it
    assert len(rolled.waits) > 100


@pytest.mark.timeout(420)
async def test_each_node_of_a_cluster_in_turn(tmp_path: Path) -> None:
    """The hand-over alone: from a gate's acknowledgement to the hands of a screener that stays."""
    taken: dict[QueueId, float] = {}

    async def take(delivered: Delivered) -> None:
        taken.setdefault(QueueId(delivered.subject.rpartition(".")[2]), time.monotonic())
        await delivered.ack()

    async with running_cluster(tmp_path) as cluster:
        gates, screener = [await cluster.connect("ingress-anon") for _ in range(2)], await cluster.connect("screener")
        publishers = [Publisher(gate) for gate in gates]
        stop, stop_taking = asyncio.Event(), asyncio.Event()
        restarts: list[tuple[float, float]] = []
        async with asyncio.timeout(360), asyncio.TaskGroup() as tasks:
            for publisher in publishers:
                tasks.create_task(publisher.run(stop))
            tasks.create_task(Consumer(screener, INTAKE, "screener", take, concurrency=20).run(stop_taking, 5))
            for node in cluster.nodes:
                await asyncio.gather(*(publisher.another(20) for publisher in publishers))
                begun = time.monotonic()
                await asyncio.to_thread(node.restart)
                # it lasts until the leaders are found anew
                await asyncio.gather(*(publisher.another(1) for publisher in publishers))
                restarts.append((begun, time.monotonic()))
            await asyncio.gather(*(publisher.another(20) for publisher in publishers))
            ended = time.monotonic()
            stop.set()
            acknowledged = {queue_id: at_s for publisher in publishers for queue_id, at_s in publisher.acknowledged.items()}
            while not acknowledged.keys() <= taken.keys():
                await asyncio.sleep(0.1)
            stop_taking.set()
        for bus in (*gates, screener):
            await bus.close()

    def kept(from_s: float, until_s: float) -> bool:
        restarting_s = sum(max(0.0, min(until_s, until) - max(from_s, begun)) for begun, until in restarts)
        return until_s - from_s <= ACK_WAIT_S + restarting_s

    times = sorted(at_s for at_s in taken.values() if at_s < ended)
    print(f"longest wait {max(taken[queue_id] - at_s for queue_id, at_s in acknowledged.items()):.1f} s")
    print(f"longest gap {max(after - before for before, after in itertools.pairwise(times)):.1f} s")
    assert all(kept(at_s, taken[queue_id]) for queue_id, at_s in acknowledged.items())
    assert all(kept(before, after) for before, after in itertools.pairwise(times))
