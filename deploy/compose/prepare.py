"""First step of the Compose stack: passwords, certificate and broker configuration, each in the volume of whoever needs it.

Promises: what is there is kept, so that it may run before every start; a new file appears whole or not at all, readable by our uid alone.
Each folder below POSTERN_SECRETS_DIR is a volume of its own, and a service mounts no other service's:

    broker/nats.conf                        every broker user with its password and permissions
    <service>/nats.password                 the broker password of a service, of `provisioner` too
    delivery/, api/database.password        that service's PostgreSQL password …
    database/queue.password, control.password   … and the same for the database server
    admin/admin-token                       the first API token
    tls/cert.pem, key.pem                   self-signed, unless certificate and key are mounted there
    demo/demo-user.password                 of the demonstration's SMTP user
    api/first-policy.json                   what .env says of smart host and relay domains; counts only while there is no policy at all
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from postern_core.broker.files import ensure_secret, write_broker_files, write_private
from postern_core.broker.permissions import BrokerAddress

BROKER = BrokerAddress(host="0.0.0.0", port=4222, monitor_port=8222, store_dir="/data")
CERTIFICATE_DAYS = 825  # the longest that common mail programs accept
# a route must lead somewhere for the services to be ready. A name that cannot exist says what is missing wherever it shows, and mail for it
# would wait in the queue; but no mail comes in, as there is no relay domain and no user yet
NO_SMART_HOST = "smart-host-is-not-set.invalid"


def prepare(directory: Path, environment: Mapping[str, str]) -> None:
    """Fill the folders below `directory`. ValueError for what `environment` or the TLS folder holds."""
    hostname = environment.get("POSTERN_HOSTNAME") or "postern.localhost"
    write_broker_files(directory / "broker" / "nats.conf", directory, BROKER)
    for database, service in (("queue", "delivery"), ("control", "api")):
        password = ensure_secret(directory / service / "database.password")
        write_private(directory / "database" / f"{database}.password", f"{password}\n")
    ensure_secret(directory / "admin" / "admin-token")
    ensure_secret(directory / "demo" / "demo-user.password")
    ensure_certificate(directory / "tls", hostname)
    policy = first_policy(hostname, environment.get("POSTERN_SMART_HOST", ""), environment.get("POSTERN_RELAY_DOMAINS", ""))
    write_private(directory / "api" / "first-policy.json", json.dumps(policy, indent=2) + "\n")


def first_policy(hostname: str, smart_host: str, relay_domains: str) -> dict[str, Any]:
    """The bootstrap file of the api. `smart_host` is name, name:port, [address] or [address]:port; domains stand between commas."""
    parsed = re.fullmatch(r"(?P<host>\[[^\]]+\]|[^:\s\[\]]+)(?::(?P<port>[0-9]+))?", smart_host.strip() or NO_SMART_HOST)
    if parsed is None:
        raise ValueError(f"POSTERN_SMART_HOST: {smart_host!r} is not name:port or [address]:port")
    next_hop = {"host": parsed["host"], "port": int(parsed["port"] or 25)}
    return {
        "hostname": hostname,
        "routes": [{"name": "default", "smart_hosts": [next_hop], "default": True}],
        "domains": [{"pattern": domain.strip()} for domain in relay_domains.split(",") if domain.strip()],
    }


def ensure_certificate(directory: Path, hostname: str) -> None:
    """A self-signed certificate for `hostname` and localhost when there is none. ValueError when a certificate has no key."""
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    if cert_file.exists() and key_file.exists():
        return
    if cert_file.exists():
        raise ValueError(f"{cert_file} has no {key_file.name} beside it")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname)])
    names: list[x509.GeneralName] = [x509.DNSName(each) for each in dict.fromkeys((hostname, "localhost"))]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pkcs8, clear = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    # the key first: a certificate without a key is then somebody's mistake and not a step of ours that was cut short
    write_private(key_file, key.private_bytes(serialization.Encoding.PEM, pkcs8, clear).decode())
    write_private(cert_file, cert.public_bytes(serialization.Encoding.PEM).decode())


def main() -> int:
    """Exit code 0 done, 78 (EX_CONFIG) a volume cannot be written, or what is mounted there is not usable."""
    directory = Path(os.environ.get("POSTERN_SECRETS_DIR", "/run/secrets"))
    try:
        prepare(directory, os.environ)
    except (OSError, ValueError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 78
    print("prepare: secrets, certificate and broker configuration are in place")
    print("prepare: the first API token: docker compose exec api cat /run/secrets/admin/admin-token")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
