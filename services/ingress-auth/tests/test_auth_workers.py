"""The authenticated gate as several processes: both its ports are shared, the one where TLS starts at once as well."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from pathlib import Path

from fixtures.broker import Broker
from fixtures.gates import Wire
from fixtures.ports import free_port
from fixtures.processes import service
from fixtures.workers import Workers
from postern_core.policy import GateLimits, GatePolicy, encode_section


async def test_two_workers_share_both_ports_and_one_that_is_killed_is_replaced(
    broker: Broker, tmp_path: Path, certificate: tuple[Path, Path], client_tls: ssl.SSLContext
) -> None:
    api, plain, inside = await broker.connect("api"), free_port(), free_port()
    limits = GateLimits(max_connections_per_client=None)
    await api.kv_put("POLICY", "gates", encode_section(GatePolicy(revision=1, hostname="mx.example", auth=limits)))
    await api.close()
    settings = {
        "POSTERN_LISTEN_STARTTLS": f"127.0.0.1:{plain}",
        "POSTERN_LISTEN_TLS": f"127.0.0.1:{inside}",
        "POSTERN_TLS_CERT_FILE": str(certificate[0]),
        "POSTERN_TLS_KEY_FILE": str(certificate[1]),
        "POSTERN_WORKERS": "2",
    }

    async def at_starttls() -> Wire:
        return await Wire(*await asyncio.open_connection("127.0.0.1", plain)).greeted()

    async def at_tls() -> Wire:
        opened = await asyncio.open_connection("127.0.0.1", inside, ssl=client_tls, server_hostname="localhost")
        return await Wire(*opened).greeted()

    async with service(broker, "ingress-auth", tmp_path, **settings) as parent:
        workers = Workers(parent.pid)
        for connect in (at_starttls, at_tls):
            await workers.all_get_connections(connect)
        victim = min(workers.pids)
        os.kill(victim, signal.SIGKILL)
        await workers.replaced(victim, 2)
        for connect in (at_starttls, at_tls):
            await workers.all_get_connections(connect)
