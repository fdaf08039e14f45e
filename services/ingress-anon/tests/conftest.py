"""The anonymous gate, running."""

from __future__ import annotations

import asyncio
import datetime
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fixtures.broker import Broker
from fixtures.dns_server import DnsServer
from fixtures.gates import GateUnderTest, gate_under_test
from postern_core.envelope import Gate
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings


@pytest.fixture
async def bare_gate(broker: Broker) -> AsyncIterator[GateUnderTest]:
    """Without a policy yet."""
    settings = Settings(**broker.settings("ingress-anon").model_dump() | {"listen": "127.0.0.1:0", "drain_s": 6})
    async with gate_under_test(broker, Gate.ANON, lambda bus: gate_of(settings, bus)) as gate:
        yield gate


@pytest.fixture
async def dns_gate(broker: Broker, dns_server: DnsServer) -> AsyncIterator[GateUnderTest]:
    """It asks the test's own DNS server."""
    changed = {"listen": "127.0.0.1:0", "drain_s": 6, "dns_servers": dns_server.setting}
    settings = Settings(**broker.settings("ingress-anon").model_dump() | changed)
    async with gate_under_test(broker, Gate.ANON, lambda bus: gate_of(settings, bus)) as gate:
        await gate.policy()
        yield gate


@pytest.fixture
async def gate(bare_gate: GateUnderTest) -> GateUnderTest:
    await bare_gate.policy()
    return bare_gate


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Self-signed, for localhost; and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
    signed = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False).sign(
        key, hashes.SHA256()
    )
    certificate_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


@pytest.fixture
async def tls_gate(broker: Broker, certificate: tuple[Path, Path]) -> AsyncIterator[GateUnderTest]:
    settings = Settings(
        **broker.settings("ingress-anon").model_dump()
        | {"listen": "127.0.0.1:0", "drain_s": 6, "tls_cert_file": certificate[0], "tls_key_file": certificate[1]}
    )
    async with gate_under_test(broker, Gate.ANON, lambda bus: gate_of(settings, bus)) as gate:
        await gate.policy()
        yield gate


@pytest.fixture
def hanging_broker(broker: Broker) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Inside `async with hanging_broker()` the broker is stopped and does not answer; its connections stay open."""

    @asynccontextmanager
    async def hanging() -> AsyncIterator[None]:
        process = broker.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                # the signal is sent when this returns, not yet obeyed by every thread
                while any(_state(task) != "T" for task in Path(f"/proc/{process.pid}/task").iterdir()):
                    await asyncio.sleep(0.005)
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    return hanging


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]
