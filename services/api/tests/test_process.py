"""The api as a process, and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx

from fixtures.api import ADMIN_TOKEN, BOOTSTRAP, ApiStarter, an_end, an_envelope, eventually, hold
from fixtures.broker import Broker
from fixtures.ports import free_port
from postern_core.bus import DispositionLog
from postern_core.disposition import DispositionKind


def environment(broker: Broker, directory: Path, **more: str) -> dict[str, str]:
    (directory / "token").write_text(ADMIN_TOKEN)
    return (
        os.environ
        | {
            "POSTERN_NATS_URL": broker.url,
            "POSTERN_NATS_USER": "api",
            "POSTERN_NATS_PASSWORD_FILE": str(broker.directory / "api.password"),
            "POSTERN_NATS_MONITOR_URL": broker.monitor_url,
            "POSTERN_DATABASE_URL": f"sqlite+aiosqlite:///{directory}/control.db",
            "POSTERN_ADMIN_TOKEN_FILE": str(directory / "token"),
        }
        | more
    )


async def run(env: dict[str, str]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "postern_api", env=env, stdout=pipe, stderr=pipe)


async def test_it_serves_alone_and_ends_cleanly(broker: Broker, tmp_path: Path) -> None:
    port = free_port()
    process = await run(environment(broker, tmp_path, POSTERN_LISTEN=f"127.0.0.1:{port}", POSTERN_HOSTNAME="mx.example"))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:

        async def ready() -> bool:
            assert process.returncode is None
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(ready, 60)
        answer = await client.get("/api/v1/settings", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        assert answer.json()["hostname"] == "mx.example"
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"service.stopped" in out
    assert ADMIN_TOKEN.encode() not in out


async def test_a_wrong_setting_is_named(broker: Broker, tmp_path: Path) -> None:
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text('{"domains": [{"pattern": "a b"}]}')
    for name, value in (
        ("POSTERN_LISTEN", "here"),
        ("POSTERN_DATABASE_URL", "mysql://h/d"),
        ("POSTERN_BOOTSTRAP_FILE", str(bootstrap)),
        ("POSTERN_BOOTSTRAP_FILE", str(tmp_path / "none")),
    ):
        process = await run(environment(broker, tmp_path, **({"POSTERN_LISTEN": "127.0.0.1:0"} | {name: value})))
        async with asyncio.timeout(60):
            _, errors = await process.communicate()
        assert (process.returncode, name.encode() in errors) == (78, True), (name, value, errors)


async def test_on_postgresql(start_api: ApiStarter, postgres_url: str) -> None:
    one = await start_api(BOOTSTRAP, database_url=postgres_url)
    two = await start_api(BOOTSTRAP, database_url=postgres_url)
    (await one.client.post("/domains", json={"pattern": "b.example"})).raise_for_status()
    assert len(await two.get("/domains")) == 2
    delivery, screener = await one.broker.connect("delivery"), await one.broker.connect("screener")
    envelopes = [an_envelope("a@relay.example", "b@relay.example") for _ in range(100)]
    await DispositionLog(delivery).write([an_end(e, DispositionKind.DELIVERED, n) for e in envelopes[1:] for n in (0, 1)])
    await hold(screener, envelopes[0])
    await DispositionLog(screener).write([an_end(envelopes[0], DispositionKind.HELD, n) for n in (0, 1)])

    async def balanced() -> Any:
        total = (await two.get("/ledger"))["total"]
        return total if total["accepted"] == 200 and total["in_flight"] == 0 else None

    total = await eventually(balanced)
    assert (total["delivered"], total["held"]) == (198, 2)
    assert (await two.get("/quarantine", sender="SENDER"))["rows"][0]["queue_id"] == envelopes[0].id
    (await two.client.post(f"/quarantine/{envelopes[0].id}/release")).raise_for_status()
    assert (await one.get("/quarantine"))["total"] == 0
    assert [entry["outcome"] for entry in (await one.get("/audit", target="quarantine/"))["entries"]] == ["done"]
    await delivery.close()
    await screener.close()
