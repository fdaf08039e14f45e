"""The authenticated gate as the program that is started, on its own event loop."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import argon2
import msgspec
import pytest

from fixtures.broker import Broker
from fixtures.certificates import Authority, server_certificate
from fixtures.gates import RELAY_DOMAINS, Wire
from fixtures.ports import free_port
from fixtures.scram_client import ScramClient
from postern_core.control import ServiceStatus
from postern_core.credentials import SmtpUser, user_key
from postern_core.policy import GatePolicy, encode_section
from postern_core.scram import verifier_of

MESSAGE = b"Subject: hello\r\n\r\n" + (b"x" * 70 + b"\r\n") * 20_000
CREDENTIALS = base64.b64encode(b"\0anna\0secret").decode()


class Program:
    """The process, and where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, starttls: int, implicit: int) -> None:
        self.process = process
        self.starttls = starttls
        self.implicit = implicit

    async def session(self) -> Wire:
        return await Wire(*await asyncio.open_connection("127.0.0.1", self.starttls)).greeted()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with a further certificate of the gate's."""
    server_certificate(tmp_path / "more" / "other.crt", tmp_path / "more" / "other.key", "other.example")
    return tmp_path / "more"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def program(
    broker: Broker, certificate: tuple[Path, Path], certificates: Path, authority: Authority, tmp_path: Path
) -> AsyncIterator[Program]:
    api, ready = await broker.connect("api"), tmp_path / "ready"
    await api.kv_put(
        "POLICY", "gates", encode_section(GatePolicy(revision=1, hostname="mx.example", relay_domains=RELAY_DOMAINS))
    )
    password_hash, scram = argon2.PasswordHasher().hash("secret"), verifier_of("secret").text()
    user = SmtpUser(name="anna", password_hash=password_hash, scram=scram, certificates=("anna@example.com",))
    await api.kv_put("USERS", user_key(user.name), msgspec.json.encode(user))
    await api.close()
    starttls, implicit = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "postern_ingress_auth",
        env=os.environ
        | {
            "POSTERN_NATS_URL": broker.url,
            "POSTERN_NATS_USER": "ingress-auth",
            "POSTERN_NATS_PASSWORD_FILE": str(broker.directory / "ingress-auth.password"),
            "POSTERN_NATS_MONITOR_URL": broker.monitor_url,
            "POSTERN_LISTEN_STARTTLS": f"127.0.0.1:{starttls}",
            "POSTERN_LISTEN_TLS": f"127.0.0.1:{implicit}",
            "POSTERN_TLS_CERT_FILE": str(certificate[0]),
            "POSTERN_TLS_KEY_FILE": str(certificate[1]),
            "POSTERN_TLS_CERTIFICATES_DIR": str(certificates),
            "POSTERN_TLS_CLIENT_CA_FILE": str(authority.file),
            "POSTERN_READY_FILE": str(ready),
        },
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while not ready.exists():
                await asyncio.sleep(0.05)
        yield Program(process, starttls, implicit)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("implicit", [False, True])
async def test_tls_auth_mail_and_an_orderly_end(program: Program, client_tls: ssl.SSLContext, implicit: bool) -> None:
    if implicit:
        connection = await asyncio.open_connection("127.0.0.1", program.implicit, ssl=client_tls, server_hostname="localhost")
        wire = await Wire(*connection).greeted()
    else:
        wire = await program.session()
        await wire.start_tls(client_tls)
        await wire.expect("EHLO client.example", "250")
    await wire.expect(f"AUTH PLAIN {CREDENTIALS}", "235 2.7.0")
    assert (await wire.message(MESSAGE)).startswith("250 2.0.0")
    await wire.transaction("a@elsewhere.example")
    await wire.expect("DATA", "354")
    await wire.send(MESSAGE[:500_000])
    program.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.2)
    await wire.send(MESSAGE[500_000:] + b".\r\n")
    assert (await wire.reply()).startswith("250 2.0.0")
    assert (await wire.reply()).startswith("421 4.3.2")
    wire.writer.close()
    async with asyncio.timeout(10):
        assert await program.process.wait() == 0


async def test_what_is_pipelined_behind_starttls_is_discarded(program: Program, client_tls: ssl.SSLContext) -> None:
    wire = await program.session()
    await wire.send(b"STARTTLS\r\nEHLO injected.example\r\nNOOP\r\nVRFY injected\r\n")
    assert (await wire.reply()).startswith("220")
    await wire.writer.start_tls(client_tls, server_hostname="localhost")
    await wire.expect("QUIT", "221")
    wire.writer.close()


async def test_a_client_that_leaves_in_the_handshake_harms_nobody(program: Program, client_tls: ssl.SSLContext) -> None:
    for nonsense in (b"", b"this is no TLS\r\n", b"\x16\x03\x01\x02\x00\x01\x00"):
        wire = await program.session()
        await wire.expect("STARTTLS", "220")
        await wire.send(nonsense)
        wire.writer.close()
    raw = await asyncio.open_connection("127.0.0.1", program.implicit)
    raw[1].write(b"EHLO plain\r\n")
    raw[1].close()
    wire = await program.session()
    await wire.start_tls(client_tls)
    await wire.expect("EHLO client.example", "250")
    await wire.expect("AUTH LOGIN", "334")
    wire.writer.close()


async def test_handshakes_that_hang_on_the_tls_port_do_not_hold_up_the_end(program: Program, client_tls: ssl.SSLContext) -> None:
    raw = await asyncio.open_connection("127.0.0.1", program.implicit)
    connection = await asyncio.open_connection("127.0.0.1", program.implicit, ssl=client_tls, server_hostname="localhost")
    wire = await Wire(*connection).greeted()
    program.process.send_signal(signal.SIGTERM)
    assert (await wire.reply()).startswith("421 4.3.2")
    async with asyncio.timeout(10):
        assert await program.process.wait() == 0
    for writer in (raw[1], wire.writer):
        writer.close()


async def test_certificates_scram_and_external(
    program: Program, broker: Broker, authority: Authority, certificate: tuple[Path, Path], certificates: Path
) -> None:
    api = await broker.connect("api")
    subject = next(iter(await api.subjects("KV_STATUS", "$KV.STATUS.ingress-auth.*")))
    report = await api.kv_get("STATUS", subject.removeprefix("$KV.STATUS."))
    await api.close()
    assert report is not None
    shown = msgspec.json.decode(report, type=ServiceStatus).certificates
    assert [each.names for each in shown] == [("localhost",), ("other.example",)]

    other = authority.client(certificates / "other.crt", subject="nobody")
    starttls = await program.session()
    await starttls.expect("STARTTLS", "220 ")
    await starttls.writer.start_tls(other, server_hostname="other.example")
    implicit = await asyncio.open_connection("127.0.0.1", program.implicit, ssl=other, server_hostname="other.example")
    for wire in (starttls, Wire(*implicit)):
        if wire is not starttls:
            assert (await wire.reply()).startswith("220 ")
        await wire.expect("EHLO client.example", "250 ")
        await wire.expect("AUTH EXTERNAL =", "535 5.7.8")  # nobody's certificate
        client = ScramClient("anna", "secret")
        challenge = await wire.expect(f"AUTH SCRAM-SHA-256 {base64.b64encode(client.first()).decode()}", "334 ")
        final = client.final(base64.b64decode(challenge[4:]))
        confirmation = await wire.expect(base64.b64encode(final), "334 ")
        assert client.accepts(base64.b64decode(confirmation[4:]))
        await wire.expect("", "235 2.7.0")
        wire.writer.close()
    wire = await program.session()
    await wire.start_tls(authority.client(certificate[0], emails=("anna@example.com",)))
    await wire.expect("EHLO client.example", "250 ")
    await wire.expect(f"AUTH EXTERNAL {base64.b64encode(b'anna').decode()}", "235 2.7.0")
    wire.writer.close()


def test_what_most_gates_do_without_is_not_loaded() -> None:
    """Each takes megabytes of the memory that an idle gate has (docs/performance.md)."""
    code = 'import sys, postern_ingress_auth.app; print(*({"dns", "cryptography"} & sys.modules.keys()))'
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip() == ""
    )
