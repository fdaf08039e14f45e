"""The broker's disk fills up: the gate's publish is refused with 452 or 451, nothing acknowledged is missing, and when there is room again, it goes on."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.broker import TEST_LIMITS, Broker
from fixtures.small_disk import MIB, small_disk
from postern_core.bus import Bus, Consumer, Delivered
from postern_core.bus.topology import INTAKE, intake_subject
from postern_core.envelope import Gate
from postern_core.errors import TransientError
from postern_core.ids import QueueId, new_queue_id

BODY = b"x" * 200_000


async def _fill(gate: Bus) -> tuple[list[QueueId], TransientError]:
    """Publish until it is refused."""
    stored: list[QueueId] = []
    while True:
        queue_id = new_queue_id()
        try:
            await gate.publish(INTAKE, intake_subject(Gate.ANON, queue_id), BODY, f"{queue_id}:intake", deadline_s=5)
        except TransientError as refusal:
            return stored, refusal
        stored.append(queue_id)
        assert len(stored) < 2000


async def _drain(broker: Broker, expected: set[QueueId]) -> None:
    screener = await broker.connect("screener")
    stop = asyncio.Event()
    seen: set[str] = set()

    async def take(delivered: Delivered) -> None:
        assert bytes(delivered.data) == BODY
        await delivered.ack()
        seen.add(delivered.subject.rpartition(".")[2])
        if expected <= seen:
            stop.set()

    async with asyncio.timeout(60):
        await Consumer(screener, INTAKE, "screener", take, concurrency=8).run(stop, 5)
    await screener.close()


async def test_a_full_stream_refuses_and_takes_mail_again_when_drained(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        await broker.provision(replace(TEST_LIMITS, intake_bytes=5 * MIB))
        gate = await broker.connect("ingress-anon")
        stored, refusal = await _fill(gate)
        assert len(stored) >= 20
        assert str(refusal.reply).startswith("452 4.3.1")
        await _drain(broker, set(stored))
        again, _ = await _fill(gate)
        assert len(again) >= 20
        await gate.close()
    finally:
        broker.stop()


@pytest.mark.timeout(180)
async def test_a_full_disk_loses_nothing_acknowledged(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24 * MIB) as disk:
        broker = Broker(disk / "broker")
        broker.start()
        try:
            await broker.provision()
            gate = await broker.connect("ingress-anon")
            stored, refusal = await _fill(gate)
            assert len(stored) >= 20
            assert refusal.reply.code in (451, 452)
            await gate.close()
            # JetStream may have switched itself off; the administrator makes room and restarts the broker
            await asyncio.to_thread(_enlarge, disk)
            await asyncio.to_thread(broker.restart)
            await _drain(broker, set(stored))
            gate = await broker.connect("ingress-anon")
            queue_id = new_queue_id()
            await gate.publish(INTAKE, intake_subject(Gate.ANON, queue_id), BODY, f"{queue_id}:intake")
            await gate.close()
        finally:
            broker.stop()


def _enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,size={200 * MIB}", str(disk)], check=True)
