"""The anonymous gate as the program that is started: its settings, its event loop, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.broker import Broker
from fixtures.gates import RELAY_DOMAINS, Wire
from fixtures.ports import free_port
from postern_core.policy import GatePolicy, encode_section

MESSAGE = b"Subject: hello\r\n\r\n" + (b"x" * 70 + b"\r\n") * 20_000


def environment(broker: Broker, **more: str) -> dict[str, str]:
    return os.environ | {
        "POSTERN_NATS_URL": broker.url,
        "POSTERN_NATS_USER": "ingress-anon",
        "POSTERN_NATS_PASSWORD_FILE": str(broker.directory / "ingress-anon.password"),
        "POSTERN_NATS_MONITOR_URL": broker.monitor_url,
        **more,
    }


async def start(**env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "postern_ingress_anon", env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )


async def test_it_takes_mail_and_ends_in_order_on_sigterm(broker: Broker, tmp_path: Path) -> None:
    api, port, ready = await broker.connect("api"), free_port(), tmp_path / "ready"
    policy = GatePolicy(revision=1, hostname="mx.example", relay_domains=RELAY_DOMAINS)
    await api.kv_put("POLICY", "gates", encode_section(policy))
    program = await start(**environment(broker, POSTERN_LISTEN=f"127.0.0.1:{port}", POSTERN_READY_FILE=str(ready)))
    try:
        async with asyncio.timeout(30):
            while not ready.exists():
                await asyncio.sleep(0.05)
        wire = await Wire(*await asyncio.open_connection("127.0.0.1", port)).greeted()
        assert (await wire.message(MESSAGE)).startswith("250")
        await wire.transaction()
        await wire.expect("DATA", "354")
        await wire.send(MESSAGE[:100_000])
        program.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while ready.exists():
                await asyncio.sleep(0.02)
        await wire.send(MESSAGE[100_000:] + b".\r\n")
        assert (await wire.reply()).startswith("250")
        assert (await wire.reply()).startswith("421 4.3.2")
        async with asyncio.timeout(10):
            assert await program.wait() == 0
        wire.writer.close()
        assert (await api.stream_state("INTAKE"))["messages"] == 2
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
        await api.close()


async def test_a_client_that_stalls_in_data_does_not_hold_up_the_end(broker: Broker, tmp_path: Path) -> None:
    api, port, ready = await broker.connect("api"), free_port(), tmp_path / "ready"
    policy = GatePolicy(revision=1, hostname="mx.example", relay_domains=RELAY_DOMAINS)
    await api.kv_put("POLICY", "gates", encode_section(policy))
    program = await start(**environment(broker, POSTERN_LISTEN=f"127.0.0.1:{port}", POSTERN_READY_FILE=str(ready)))
    try:
        async with asyncio.timeout(30):
            while not ready.exists():
                await asyncio.sleep(0.05)
        wire = await Wire(*await asyncio.open_connection("127.0.0.1", port)).greeted()
        await wire.transaction()
        await wire.expect("DATA", "354")
        await wire.send(MESSAGE[:100_000])
        program.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert (await wire.reply()).startswith("421 4.3.2")
            assert await program.wait() == 0
        wire.writer.close()
        assert (await api.stream_state("INTAKE"))["messages"] == 0
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
        await api.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"POSTERN_LISTEN": "25"},
        {"POSTERN_LISTEN": "::1:25"},
        {"POSTERN_LISTEN": "127.0.0.1:99999"},
        {"POSTERN_TLS_CERT_FILE": "/no/such/file"},
    ],
)
async def test_a_wrong_setting_is_named_and_ends_the_program(broker: Broker, wrong: dict[str, str]) -> None:
    program = await start(**environment(broker, **wrong))
    _, errors = await asyncio.wait_for(program.communicate(), 30)
    assert program.returncode == 78
    assert next(iter(wrong)).encode() in errors


async def test_an_address_in_use_ends_the_program(broker: Broker) -> None:
    program = await start(**environment(broker, POSTERN_LISTEN=f"127.0.0.1:{broker.port}"))
    _, errors = await asyncio.wait_for(program.communicate(), 30)
    assert program.returncode == 78
    assert f"cannot listen on 127.0.0.1:{broker.port}".encode() in errors


def test_what_most_gates_do_without_is_not_loaded() -> None:
    """Each takes megabytes of the memory that an idle gate has (docs/performance.md)."""
    code = 'import sys, postern_ingress_anon.app; print(*({"dns", "ldap3", "cryptography"} & sys.modules.keys()))'
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip() == ""
    )
