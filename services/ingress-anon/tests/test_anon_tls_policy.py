"""What the policy says of TLS at the anonymous gate, over real sockets: off, optional, required, which versions and which ciphers."""

from __future__ import annotations

import asyncio
import os
import smtplib
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fixtures.broker import Broker
from fixtures.certificates import server_certificate
from fixtures.gates import GateUnderTest, gate_under_test
from postern_core.envelope import Gate
from postern_core.notices import NoticeKind
from postern_core.policy import CipherFloor, ListenerPolicy, ListenerTls, TlsUse, TlsVersion
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
# a client that takes one cipher of TLS 1.3 and no other, which its own API cannot say: OpenSSL is told by a file
CLIENT = """
import smtplib, ssl, sys
client = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=20)
client.starttls(context=ssl.create_default_context(cafile=sys.argv[2]))
print(client.sock.cipher()[0], client.noop()[0])
"""
OPENSSL = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = default
[default]
Ciphersuites = {}
"""


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    server_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", "localhost", "mx.example", subject="localhost")
    return tmp_path / "cert.pem"


@pytest.fixture
async def gate(broker: Broker, trusted: Path) -> AsyncIterator[GateUnderTest]:
    files = {"tls_cert_file": trusted, "tls_key_file": trusted.with_name("key.pem")}
    settings = Settings(**broker.settings("ingress-anon").model_dump() | {"listen": "127.0.0.1:0", "drain_s": 6} | files)
    async with gate_under_test(broker, Gate.ANON, lambda bus: gate_of(settings, bus)) as running:
        await running.policy()
        yield running


async def follow(gate: GateUnderTest, tls: ListenerTls, **limits: object) -> None:
    """Put this policy in force."""
    gate.listener_policy = ListenerPolicy(tls=tls)
    await gate.policy(**limits)


def client(trusted: Path, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, ciphers: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(trusted))
    context.maximum_version = newest
    if ciphers:
        context.set_ciphers(ciphers)
    return context


async def cipher(gate: GateUnderTest, context: ssl.SSLContext) -> str:
    """Protocol and cipher of a session that works."""
    wire = await (await gate.session()).start_tls(context)
    await wire.expect("EHLO client.example", "250 ")
    await wire.expect("QUIT", "221")
    name, version, _ = wire.writer.get_extra_info("cipher")
    return f"{version} {name}"


async def fails(gate: GateUnderTest, context: ssl.SSLContext) -> None:
    """There is no session with such a client, and none is left of it."""
    wire = await gate.session()
    await wire.expect("STARTTLS", "220 ")
    with pytest.raises(OSError):
        await wire.writer.start_tls(context, server_hostname="localhost")
    await gate.wait_for(lambda: gate.listener.connections == 0)


async def test_required_means_that_nothing_else_is_answered_before_it(gate: GateUnderTest, trusted: Path) -> None:
    open_before = await gate.session()
    await open_before.expect("MAIL FROM:<a@b.example>", "250")
    await follow(gate, ListenerTls(use=TlsUse.REQUIRED), max_errors=None)
    await open_before.expect("RCPT TO:<a@relay.example>", "250")  # a transaction keeps the rules that it began with
    wire = await gate.session()
    for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<a@relay.example>", "DATA", "VRFY x", "FROB"):
        await wire.expect(line, "530 5.7.0 must issue a STARTTLS command first")
    for line in ("NOOP", "RSET", "HELO x", "EHLO x"):
        await wire.expect(line, "250")
    await wire.start_tls(client(trusted))
    await wire.expect("EHLO client.example", "250 ")
    assert (await gate.stored(await wire.message(MESSAGE)))[0].client.tls.startswith("TLSv1.3 ")
    await open_before.expect("RSET", "250")
    await open_before.expect("MAIL FROM:<a@b.example>", "530 5.7.0")


async def test_required_means_that_who_does_not_start_it_is_dropped(gate: GateUnderTest) -> None:
    await follow(gate, ListenerTls(use=TlsUse.REQUIRED), tls_deadline_s=0.2)
    wire = await gate.session()
    assert (await wire.reply()).startswith("421 4.7.0 TLS was not started in time")
    await follow(gate, ListenerTls(use=TlsUse.REQUIRED), tls_deadline_commands=2)
    wire = await gate.session()
    await wire.expect("NOOP", "250")
    await wire.expect("NOOP", "421 4.7.0")


@pytest.mark.parametrize("use", [TlsUse.AUTO, TlsUse.OPTIONAL])
async def test_optional_takes_mail_with_it_and_without(gate: GateUnderTest, trusted: Path, use: TlsUse) -> None:
    await follow(gate, ListenerTls(use=use))
    wire = await gate.session()
    assert (await wire.message(MESSAGE)).startswith("250")
    await wire.start_tls(client(trusted))
    await wire.expect("EHLO client.example", "250 ")
    assert (await wire.message(MESSAGE)).startswith("250")


async def test_off_means_that_it_is_not_offered(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await follow(gate, ListenerTls(use=TlsUse.OFF))
    await wire.send(b"EHLO client.example\r\n")
    told = [await wire.reader.readline()]
    while told[-1][3:4] == b"-":
        told.append(await wire.reader.readline())
    assert not [line for line in told if b"STARTTLS" in line]
    await wire.expect("STARTTLS", "502 5.5.1")
    assert (await wire.message(MESSAGE)).startswith("250")


async def test_without_a_certificate_it_cannot_be_required(broker: Broker) -> None:
    settings = Settings(**broker.settings("ingress-anon").model_dump() | {"listen": "127.0.0.1:0", "drain_s": 6})
    async with gate_under_test(broker, Gate.ANON, lambda bus: gate_of(settings, bus)) as gate:
        await gate.policy()
        refused = await gate.refused_policy(ListenerPolicy(tls=ListenerTls(use=TlsUse.REQUIRED)))
        assert refused == "TLS is required, and this gate has no certificate"
        assert (await (await gate.session()).message(MESSAGE)).startswith("250")  # by the last good policy


async def test_the_oldest_version_is_the_policys_for_new_handshakes(gate: GateUnderTest, trusted: Path) -> None:
    old = client(trusted, newest=ssl.TLSVersion.TLSv1_2)
    inside = await (await gate.session()).start_tls(old)
    await inside.expect("EHLO client.example", "250 ")
    await follow(gate, ListenerTls(min_version=TlsVersion.TLS_1_3))
    await inside.expect("NOOP", "250")
    await inside.expect("QUIT", "221")
    await fails(gate, old)
    assert (await gate.notice(NoticeKind.TLS_FAILED)).about == "127.0.0.1"
    assert (await cipher(gate, client(trusted))).startswith("TLSv1.3 ")
    await follow(gate, ListenerTls())
    assert (await cipher(gate, old)).startswith("TLSv1.2 ")


@pytest.mark.parametrize(
    ("floor", "ciphers", "is_taken"),
    [
        (CipherFloor.STANDARD, "ECDHE-ECDSA-AES128-SHA256", True),
        (CipherFloor.AEAD, "ECDHE-ECDSA-AES128-SHA256", False),
        (CipherFloor.AEAD, "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        (CipherFloor.BITS_256, "ECDHE-ECDSA-AES128-GCM-SHA256", False),
        (CipherFloor.BITS_256, "ECDHE-ECDSA-AES256-GCM-SHA384", True),
        (CipherFloor.STANDARD, "ECDHE-ECDSA-AES128-SHA", False),  # SHA-1
        (CipherFloor.STANDARD, "ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0", False),
        (CipherFloor.STANDARD, "AECDH-AES128-SHA:@SECLEVEL=0", False),  # nobody's certificate
    ],
)
async def test_ciphers_of_tls_1_2(gate: GateUnderTest, trusted: Path, floor: CipherFloor, ciphers: str, is_taken: bool) -> None:
    await follow(gate, ListenerTls(ciphers=floor))
    context = client(trusted, newest=ssl.TLSVersion.TLSv1_2, ciphers=ciphers)
    if is_taken:
        assert await cipher(gate, context) == f"TLSv1.2 {ciphers}"
    else:
        await fails(gate, context)


@pytest.mark.parametrize(
    ("floor", "suite", "is_taken"),
    [
        (CipherFloor.STANDARD, "TLS_AES_128_GCM_SHA256", True),
        (CipherFloor.BITS_256, "TLS_AES_128_GCM_SHA256", False),
        (CipherFloor.BITS_256, "TLS_AES_256_GCM_SHA384", True),
    ],
)
async def test_ciphers_of_tls_1_3(
    gate: GateUnderTest, trusted: Path, tmp_path: Path, floor: CipherFloor, suite: str, is_taken: bool
) -> None:
    await follow(gate, ListenerTls(ciphers=floor))
    (tmp_path / "openssl.cnf").write_text(OPENSSL.format(suite))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CLIENT.replace("127.0.0.1", "localhost"),
        str(gate.listener.addresses[0].port),
        str(trusted),
        env=os.environ | {"OPENSSL_CONF": str(tmp_path / "openssl.cnf")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    said, _ = await process.communicate()
    assert said.decode() == (f"{suite} 250\n" if is_taken else "")
    if not is_taken:
        assert (await gate.notice(NoticeKind.TLS_FAILED)).fields == {"reason": "cipher too weak"}


async def test_a_failed_handshake_is_told_with_openssls_reason(gate: GateUnderTest) -> None:
    def distrust() -> None:
        # not asyncio's client, which closes before its alert is out
        with smtplib.SMTP("127.0.0.1", gate.listener.addresses[0].port, timeout=20) as distrusting:
            distrusting.starttls(context=ssl.create_default_context())

    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(distrust)
    notice = await gate.notice(NoticeKind.TLS_FAILED)
    assert (notice.about, notice.fields) == ("127.0.0.1", {"reason": "tlsv1 alert unknown ca"})
