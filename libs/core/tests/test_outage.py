"""The broker is away for longer than any of the client's clocks lasts, and comes back: the same connection works again.

The clocks run faster here than they are set; `make outage` shows ten minutes of it with the whole relay.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from fixtures.broker import Broker
from postern_core.bus import Consumer, Delivered, connection
from postern_core.bus.topology import INTAKE

GIVES_UP_AFTER = 60  # attempts, the client's own default


async def test_more_refusals_than_a_client_puts_up_with_by_default_end_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_RECONNECT_PAUSE_S", 0.01)
    gate, screener = await broker.connect("ingress-anon"), await broker.connect("screener")
    refused, enough, heard, stop = 0, asyncio.Event(), asyncio.Event(), asyncio.Event()

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        refused += 1
        writer.close()
        if refused > 3 * GIVES_UP_AFTER:  # two clients, and none of the two may have had luck
            enough.set()

    async def take(delivered: Delivered) -> None:
        await delivered.ack()
        heard.set()
        stop.set()

    async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
        tasks.create_task(Consumer(screener, INTAKE, "screener", take, concurrency=4).run(stop, 1))
        await asyncio.to_thread(broker.stop)
        listener = await asyncio.start_server(hang_up, "127.0.0.1", broker.port)
        async with listener:
            await enough.wait()
        await asyncio.to_thread(broker.restart)
        while not (gate.connected and screener.connected):
            await asyncio.sleep(0.02)
        assert (await gate.publish(INTAKE, "intake.anon.x", b"mail", "x")).seq == 1
        await heard.wait()
    assert not gate.closed.is_set()
    assert not screener.closed.is_set()
    for bus in (gate, screener):
        await bus.close()


async def test_a_broker_that_is_silent_for_longer_than_pings_may_be_missed_is_left_and_found_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections stay open, and nothing comes: only the client's own pings tell."""
    monkeypatch.setattr(connection, "_PING_EVERY_S", 0.2)
    monkeypatch.setattr(connection, "_RECONNECT_PAUSE_S", 0.05)
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT_S", 0.3)
    gate = await broker.connect("ingress-anon")
    server = gate.client._current_server
    assert broker.process is not None
    assert server is not None
    try:
        broker.process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                while gate.connected or server.reconnects == 0:  # left, and an attempt to come back had no answer either
                    await asyncio.sleep(0.01)
        finally:
            broker.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(30):
            while not gate.connected:
                await asyncio.sleep(0.01)
        assert (await gate.publish(INTAKE, "intake.anon.x", b"mail", "x")).seq == 1
    finally:
        await gate.close()


async def test_a_broker_that_hangs_with_mail_on_its_way_is_left_for_another(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: before it connected anew the client waited for the hung one to take what had been written, which is as long as that hangs, or the
    system's quarter of an hour where its host is gone: a gate with a large message on its way was out of work, whatever other servers there were."""
    monkeypatch.setattr(connection, "_PING_EVERY_S", 0.2)
    another = Broker(tmp_path / "another")
    another.start()
    await another.provision()
    gate = await broker.connect("ingress-anon")
    gate.client._setup_server_pool([another.url])
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)
    try:
        for n in range(8):
            await gate.client.publish(f"intake.anon.{n}", bytes(4_000_000))
        async with asyncio.timeout(30):
            while gate.client.connected_url is None or gate.client.connected_url.port != another.port:
                await asyncio.sleep(0.01)
        assert (await gate.publish(INTAKE, "intake.anon.x", b"mail", "x")).seq == 1  # and nothing of the other mail came along
    finally:
        broker.process.send_signal(signal.SIGCONT)
        await gate.close()
        another.stop()
