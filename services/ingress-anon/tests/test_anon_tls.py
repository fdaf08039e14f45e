"""The anonymous gate with a certificate: TLS is offered, and never required (RFC 3207 section 4)."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fixtures.broker import Broker
from fixtures.certificates import server_certificate
from fixtures.gates import GateUnderTest, gate_under_test
from postern_core.envelope import Gate
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Self-signed, for localhost; and its key."""
    certificate_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    server_certificate(certificate_file, key_file, "localhost")
    return certificate_file, key_file


@pytest.fixture
async def tls_gate(broker: Broker, certificate: tuple[Path, Path]) -> AsyncIterator[GateUnderTest]:
    settings = Settings(
        **broker.settings("ingress-anon").model_dump()
        | {"listen": "127.0.0.1:0", "drain_s": 6, "tls_cert_file": certificate[0], "tls_key_file": certificate[1]}
    )
    async with gate_under_test(broker, Gate.ANON, lambda _: gate_of(settings)) as gate:
        await gate.policy()
        yield gate


async def test_mail_is_taken_with_tls_and_without(tls_gate: GateUnderTest, certificate: tuple[Path, Path]) -> None:
    wire = await tls_gate.session()
    await wire.expect("AUTH PLAIN AGEAYg==", "502 5.5.1")
    envelope, body = await tls_gate.stored(await wire.message(MESSAGE))
    assert (envelope.client.tls, b" with ESMTP\r\n" in body) == ("", True)
    await wire.transaction()
    await wire.expect("STARTTLS", "503 5.5.1")
    await wire.expect("RSET", "250")
    await wire.start_tls(ssl.create_default_context(cafile=str(certificate[0])))
    await wire.expect("MAIL FROM:<>", "503 5.5.1")
    await wire.expect("EHLO client.example", "250 DSN")
    await wire.expect("STARTTLS", "503 5.5.1")
    envelope, body = await tls_gate.stored(await wire.message(MESSAGE))
    assert envelope.client.tls.startswith("TLSv1.3 TLS_")
    assert b" with ESMTPS (TLSv1.3 TLS_" in body
    await wire.expect("RCPT TO:<a@elsewhere.example>", "503 5.5.1")


async def test_commands_glued_to_starttls_are_not_obeyed_inside(tls_gate: GateUnderTest, certificate: tuple[Path, Path]) -> None:
    wire = await tls_gate.session()
    await wire.send(b"STARTTLS\r\nEHLO injected.example\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<a@relay.example>\r\n")
    assert (await wire.reply()).startswith("220 2.0.0")
    await wire.writer.start_tls(ssl.create_default_context(cafile=str(certificate[0])), server_hostname="localhost")
    await wire.expect("DATA", "503 5.5.1")
    await wire.expect("MAIL FROM:<>", "503 5.5.1")
    await wire.expect("EHLO client.example", "250")
