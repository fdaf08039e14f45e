"""Acknowledgements that are lost, late or doubled on the way lose no message and make no second one in the stream."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fixtures.broker import Broker
from fixtures.faulty_proxy import FaultyProxy
from postern_core.bus import Bus, Consumer, Delivered, connect
from postern_core.bus.topology import INTAKE, OUTBOUND, intake_subject, outbound_subject
from postern_core.envelope import Gate
from postern_core.ids import new_queue_id

MESSAGES = 60


async def _through(proxy: FaultyProxy, broker: Broker, user: str) -> Bus:
    return await connect(broker.settings(user).model_copy(update={"nats_url": proxy.url}), user)


@pytest.mark.parametrize("accident", ["lose", "delay", "double"])
async def test_every_message_arrives_once_behind_two_faulty_connections(broker: Broker, accident: str) -> None:
    proxy = FaultyProxy(broker.port, seed=7)
    await proxy.start()
    gate, screener = await _through(proxy, broker, "ingress-anon"), await _through(proxy, broker, "screener")
    setattr(proxy, accident, 0.2)
    stop = asyncio.Event()
    handled: Counter[str] = Counter()

    async def hand_over(delivered: Delivered) -> None:
        queue_id = delivered.subject.rpartition(".")[2]
        await screener.publish(
            OUTBOUND, outbound_subject("default", queue_id), delivered.data, f"{queue_id}:outbound", deadline_s=60
        )  # type: ignore[arg-type]
        await delivered.ack()
        handled[queue_id] += 1
        if len(handled) == MESSAGES:
            stop.set()

    ids = [new_queue_id() for _ in range(MESSAGES)]
    async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
        tasks.create_task(Consumer(screener, INTAKE, "screener", hand_over, concurrency=20).run(stop, 20))
        for queue_id in ids:
            subject = intake_subject(Gate.ANON, queue_id)
            tasks.create_task(gate.publish(INTAKE, subject, b"mail", f"{queue_id}:intake", deadline_s=60))
    assert proxy.lost + proxy.delayed + proxy.doubled > 0
    assert set(handled) == set(ids)
    await proxy.stop()

    observer = await broker.connect("delivery")
    stored = await observer.subjects(OUTBOUND, "outbound.default.*")
    assert stored == {outbound_subject("default", queue_id): 1 for queue_id in ids}
    for bus in (gate, screener, observer):
        await bus.close()
