"""The authenticated gate, running, with one user; its certificate is made for the test."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import argon2
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fixtures.broker import Broker
from fixtures.gates import GateUnderTest, gate_under_test
from postern_core.credentials import SmtpUser, user_key
from postern_core.envelope import Gate
from postern_ingress_auth.app import gate_of
from postern_ingress_auth.settings import Settings

# cheap on purpose: these tests are not about the cost of a guess
HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


def write_certificate(directory: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "cert.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return write_certificate(tmp_path)


@pytest.fixture
def client_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


@pytest.fixture
async def gate(broker: Broker, certificate: tuple[Path, Path]) -> AsyncIterator[GateUnderTest]:
    """Port 0 is STARTTLS, port 1 implicit TLS."""
    settings = Settings(
        **broker.settings("ingress-auth").model_dump()
        | {
            "listen_starttls": "127.0.0.1:0",
            "listen_tls": "127.0.0.1:0",
            "tls_cert_file": certificate[0],
            "tls_key_file": certificate[1],
            "auth_failure_delay_s": 0.01,
            "auth_failure_limit": 6,
            "drain_s": 6,
        }
    )
    async with gate_under_test(broker, Gate.AUTH, lambda bus: gate_of(settings, bus)) as running:
        for user in (
            SmtpUser(name="Anna@example.com", password_hash=HASHER.hash("wörd pass")),
            SmtpUser(name="gone", password_hash=HASHER.hash("wörd pass"), enabled=False),
            SmtpUser(name="broken", password_hash="no hash"),
        ):
            await running.api.kv_put("USERS", user_key(user.name), msgspec.json.encode(user))
        await running.policy()
        yield running
