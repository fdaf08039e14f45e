"""Ten thousand clients that say nothing and a thousand that drip: what they cost the gate is bounded, and an honest one is served."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.processes import memory_bytes
from fixtures.auth_gate import write_certificate
from fixtures.broker import Broker
from fixtures.crowd import crowd
from fixtures.gates import RELAY_DOMAINS, Wire
from fixtures.ports import free_port
from fixtures.processes import service
from postern_core.policy import GateLimits, GatePolicy, encode_section

IDLE, DRIPPING = 10_000, 1_000
CONNECTION_BYTES = 40_000
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_ten_thousand_idle_and_a_thousand_dripping_clients_are_borne(broker: Broker, tmp_path: Path, tls: bool) -> None:
    idle = IDLE if not tls else IDLE // 10  # a handshake is a millisecond of CPU at either end
    limits = GateLimits(max_connections=None, max_connections_per_client=None)
    api, port = await broker.connect("api"), free_port()
    await api.kv_put(
        "POLICY",
        "gates",
        encode_section(GatePolicy(revision=1, hostname="mx.example", relay_domains=RELAY_DOMAINS, anon=limits)),
    )
    await api.close()
    certificate, key = write_certificate(tmp_path)
    settings = {
        "POSTERN_LISTEN": f"127.0.0.1:{port}",
        "POSTERN_TLS_CERT_FILE": str(certificate),
        "POSTERN_TLS_KEY_FILE": str(key),
    }
    async with service(broker, "ingress-anon", tmp_path, **settings) as gate:
        await honest(port)
        before = memory_bytes([gate.pid])
        with crowd(port, idle=idle, tls=tls) as sleepers:
            assert memory_bytes([gate.pid]) - before < idle * CONNECTION_BYTES
            with crowd(port, idle=0, dripping=DRIPPING, tls=tls) as drippers:
                await honest(port)
                assert memory_bytes([gate.pid]) - before < (idle + DRIPPING) * CONNECTION_BYTES
                assert (sleepers.lost(), drippers.lost()) == (0, 0)


async def honest(port: int) -> None:
    wire = await Wire(*await asyncio.open_connection("127.0.0.1", port)).greeted()
    assert (await wire.message(MESSAGE)).startswith("250 2.0.0")
    wire.writer.close()
