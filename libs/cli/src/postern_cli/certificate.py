"""A self-signed certificate for the authenticated gate of an embedded stack (RFC 5280; names as RFC 6125 section 6.4 compares them).

A program of its own, `python -m postern_cli.certificate DIR`: `postern up` would keep the library for as long as the stack runs, eleven
megabytes of it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from postern_core.broker.files import write_private

_VALID: Final = timedelta(days=397)  # the longest that common mail programs accept is 825
_RENEW: Final = timedelta(days=31)  # before the gate tells that it expires
_LABELS: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.(?!-)[a-z0-9-]{1,63})*", re.IGNORECASE)


def ensure_certificate(folder: Path, *, now: datetime | None = None) -> tuple[Path, Path]:
    """`cert.pem` and `key.pem` in `folder`, made anew when they are missing, do not belong together, or end within a month of `now`."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    now = now or datetime.now(UTC)
    if not _usable(certificate, key, now):
        _make(certificate, key, now)
    return certificate, key


def _usable(certificate: Path, key: Path, now: datetime) -> bool:
    try:
        present = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return False
    return present.public_key() == private.public_key() and present.not_valid_after_utc - now > _RENEW


def _make(certificate: Path, key: Path, now: datetime) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    own = ("localhost", "postern.localhost", socket.gethostname(), socket.getfqdn())  # the second is the demo policy's hostname
    hosts = dict.fromkeys(host for host in own if _LABELS.fullmatch(host))
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pkcs8, clear = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_private(key, private.private_bytes(serialization.Encoding.PEM, pkcs8, clear).decode())
    write_private(certificate, made.public_bytes(serialization.Encoding.PEM).decode())


if __name__ == "__main__":
    ensure_certificate(Path(sys.argv[1]))
