"""A gate is killed before each chunk of a large body, before its envelope, and before its 250: no 250, no loss, and nothing stays behind."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import pytest

from fixtures.broker import Broker
from fixtures.gates import RELAY_DOMAINS, Wire
from fixtures.holding_proxy import HoldingProxy
from fixtures.ports import free_port
from fixtures.processes import kill, service
from postern_core.bus import Bus
from postern_core.bus.bodies import CHUNK_BYTES
from postern_core.bus.topology import BODIES, INTAKE
from postern_core.policy import DeliveryPolicy, GateLimits, GatePolicy, NextHop, Route, encode_section

CHUNKS = 4
MESSAGE = b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * ((CHUNKS - 1) * CHUNK_BYTES // 72 + 100)
NO_LIMITS = GateLimits(max_message_bytes=None, max_session_bytes=None)
STEPS = [*((f"body.{k}", "body.ingress-anon.", k) for k in range(1, CHUNKS + 1)), ("envelope", "intake.anon.", 1)]


@pytest.mark.parametrize(("subject", "number"), [step[1:] for step in STEPS], ids=[step[0] for step in STEPS])
async def test_a_death_in_the_midst_of_storing_a_large_body_gets_no_250_and_leaves_nothing(
    broker: Broker, tmp_path: Path, subject: str, number: int
) -> None:
    api, proxy, port = await broker.connect("api"), HoldingProxy(broker.port), free_port()
    await _publish_policy(api)
    await proxy.start()
    try:
        async with service(broker, "ingress-anon", tmp_path, nats_url=proxy.url, POSTERN_LISTEN=f"127.0.0.1:{port}") as gate:
            wire = await _begun(port)
            proxy.hold_from(subject, number)
            await wire.send(MESSAGE + b".\r\n")
            await proxy.held.wait()
            # what went before is stored, as far as it will be
            await _until_holds(api, BODIES, number - 1 if subject.startswith("body") else CHUNKS)
            await kill(gate)
            assert await _last_word(wire) == ""
        assert await _count(api, INTAKE) == 0
        # its client sends it again, to a gate that is there again
        async with service(broker, "ingress-anon", tmp_path, POSTERN_LISTEN=f"127.0.0.1:{port}"):
            wire = await Wire(*await asyncio.open_connection("127.0.0.1", port)).greeted()
            assert (await wire.message(MESSAGE)).startswith("250 ")
        # the body without an owner goes, the one that has an owner stays
        async with _delivery(broker, tmp_path):
            await _until_holds(api, BODIES, CHUNKS)
            [envelope] = await api.subjects(INTAKE, "intake.anon.*")
            queue_id = envelope.rpartition(".")[2]
            assert await api.subjects(BODIES, f"body.ingress-anon.{queue_id}.*") == {
                f"body.ingress-anon.{queue_id}.{k}": 1 for k in range(CHUNKS)
            }
    finally:
        await proxy.stop()
        await api.close()


def _delivery(broker: Broker, directory: Path) -> AbstractAsyncContextManager[object]:
    """With a janitor that looks often and waits for a second only."""
    return service(
        broker,
        "delivery",
        directory,
        POSTERN_DATABASE_URL=f"sqlite+aiosqlite:///{directory / 'queue.db'}",
        POSTERN_JANITOR_EVERY_S="0.2",
        POSTERN_ORPHAN_GRACE_S="1",
    )


async def _publish_policy(api: Bus) -> None:
    gates = GatePolicy(revision=1, hostname="mx.example", relay_domains=RELAY_DOMAINS, anon=NO_LIMITS)
    route = Route(name="default", next_hops=(NextHop(host="127.0.0.1", port=free_port()),))
    await api.kv_put("POLICY", "gates", encode_section(gates))
    await api.kv_put("POLICY", "delivery", encode_section(DeliveryPolicy(revision=1, hostname="mx.example", routes=(route,))))


async def _begun(port: int) -> Wire:
    wire = await Wire(*await asyncio.open_connection("127.0.0.1", port)).greeted()
    await wire.transaction()
    await wire.expect("DATA", "354")
    return wire


async def _last_word(wire: Wire) -> str:
    """What the gate still said, "" for nothing."""
    with suppress(ConnectionError):
        return await wire.reply()
    return ""


async def _count(api: Bus, stream: str) -> int:
    return int((await api.stream_state(stream))["messages"])


async def _until_holds(api: Bus, stream: str, messages: int) -> None:
    async with asyncio.timeout(30):
        while await _count(api, stream) != messages:
            await asyncio.sleep(0.02)
