"""The anonymous gate as several processes behind one port."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from fixtures.broker import Broker
from fixtures.gates import PATIENCE_S, RELAY_DOMAINS, Wire
from fixtures.ports import free_port
from fixtures.processes import service
from fixtures.workers import MESSAGE, Workers, send_while_one_is_killed, stored_ids
from postern_core.policy import GateLimits, GatePolicy, encode_section
from postern_ingress_anon.settings import Settings

MIB = 1024 * 1024


async def test_two_workers_share_a_port_and_one_that_is_killed_is_replaced_and_takes_no_mail_with_it(
    broker: Broker, tmp_path: Path
) -> None:
    port = await _policy(broker)

    async def connect() -> Wire:
        return await Wire(*await asyncio.open_connection("127.0.0.1", port)).greeted()

    async with service(broker, "ingress-anon", tmp_path, POSTERN_LISTEN=f"127.0.0.1:{port}", POSTERN_WORKERS="2") as parent:
        workers = Workers(parent.pid)
        assert len(workers.pids) == 2
        assert await _have_status(broker, "ingress-anon-test-0", "ingress-anon-test-1")
        await workers.all_get_connections(connect)
        victim = min(workers.pids)
        accepted = await send_while_one_is_killed(connect, victim)
        assert len(accepted) > 50
        assert accepted <= await stored_ids(broker)
        await workers.replaced(victim, 2)
        await workers.all_get_connections(connect)


async def test_sigterm_lets_every_worker_finish_what_it_has(broker: Broker, tmp_path: Path) -> None:
    port = await _policy(broker)

    async def in_data() -> Wire:
        wire = await Wire(*await asyncio.open_connection("127.0.0.1", port)).greeted()
        await wire.transaction()
        await wire.expect("DATA", "354")
        return wire

    settings = {"POSTERN_LISTEN": f"127.0.0.1:{port}", "POSTERN_WORKERS": "2"}
    async with service(broker, "ingress-anon", tmp_path, **settings) as parent:
        wires = await Workers(parent.pid).all_get_connections(in_data)
        parent.send_signal(signal.SIGTERM)
        answers = []
        for wire in wires:
            await wire.send(MESSAGE + b".\r\n")
            answers.append(await wire.reply())
        assert {answer[:9] for answer in answers} == {"250 2.0.0"}
        async with asyncio.timeout(PATIENCE_S):
            assert await parent.wait() == 0
    assert len(await stored_ids(broker)) == len(wires)


def test_workers_divide_the_memory_that_is_set_for_all_of_them() -> None:
    assert Settings(workers=4, memory_bytes=64 * MIB).workers_share() == {"POSTERN_MEMORY_BYTES": str(16 * MIB)}
    assert Settings(workers=4, memory_bytes=4 * MIB).workers_share() == {"POSTERN_MEMORY_BYTES": str(4 * MIB)}


async def _have_status(broker: Broker, *instances: str) -> bool:
    """Whether each is a replica of its own in the status."""
    reader = await broker.connect("provisioner")
    try:
        found = [await reader.last("KV_STATUS", f"$KV.STATUS.ingress-anon.{instance}") for instance in instances]
    finally:
        await reader.close()
    return None not in found


async def _policy(broker: Broker) -> int:
    """In force for whoever starts; a free port."""
    api = await broker.connect("api")
    limits = GateLimits(max_connections_per_client=None)
    policy = GatePolicy(revision=1, hostname="mx.example", relay_domains=RELAY_DOMAINS, anon=limits)
    await api.kv_put("POLICY", "gates", encode_section(policy))
    await api.close()
    return free_port()
