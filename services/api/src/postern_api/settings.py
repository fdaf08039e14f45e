"""Settings of the api: where it listens, its database, and what it starts from."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path

from pydantic import Field, field_validator
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from postern_core.bus.topology import BusLimits
from postern_core.settings import BusSettings, ExistingFile

_DRIVERS = ("sqlite+aiosqlite", "postgresql+asyncpg")


class Settings(BusSettings):
    """Environment variables `POSTERN_*` of the api; those of the bus come on top."""

    nats_user: str = Field(default="api", description="Broker user of this service.")
    listen: str = Field(default="127.0.0.1:8080", description="host:port of the REST API; IPv6 as [::1]:8080.")
    database_url: str = Field(
        default="sqlite+aiosqlite:///var/control.db",
        description="Database `control`: sqlite+aiosqlite:///path or postgresql+asyncpg://user@host/control.",
    )
    database_password_file: ExistingFile | None = Field(default=None, description="File with the database password.")
    admin_token_file: ExistingFile | None = Field(
        default=None, description="File with a token that is registered as an administrator's when it is not known yet."
    )
    bootstrap_file: ExistingFile | None = Field(
        default=None, description="JSON with the first policy, applied once, when there is no revision yet."
    )
    hostname: str = Field(
        default_factory=socket.getfqdn, description="Name of the relay in the first policy, when no bootstrap file gives one."
    )
    trace_days: int = Field(default=30, ge=1, le=3650, description="Days that the trace of settled mail is kept.")
    alert_days: int = Field(default=30, ge=1, le=3650, description="Days that raised alerts are kept; ten thousand at most.")
    webhook_secret_file: ExistingFile | None = Field(
        default=None,
        description="File with the secret by which alerts that are posted to webhooks are signed; none: they are not.",
    )
    webhook_ca_file: ExistingFile | None = Field(
        default=None, description="CA certificates by which webhooks are verified; none: the public ones."
    )
    session_log_days: int = Field(default=14, ge=1, le=3650, description="Days that the session log is kept.")
    session_log_rows: int = Field(
        default=5_000_000,
        ge=1000,
        le=1_000_000_000,
        description="Records of the session log that are kept, about 250 bytes each; the oldest go first.",
    )
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024, description="Largest request body, in bytes.")
    alarms_every_s: float = Field(
        default=15.0,
        ge=0.2,
        le=3600,
        description="Seconds between looks at streams, consumers and replicas, of which alarms are made.",
    )
    verify_every_s: float = Field(
        default=3600.0,
        ge=1,
        le=604800,
        description="Seconds between comparisons of the ledger with the mail, of which an alarm is made.",
    )
    bus_replicas: int = Field(default=1, ge=1, le=5, description="Copies of a new route's consumer; as the provisioner's.")
    ack_wait_s: float = Field(
        default=30.0, ge=30, le=600, description="Seconds until a dead delivery's work is given to another; as the provisioner's."
    )

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not host.strip("[]") or not port.isdigit() or int(port) > 65535:
            raise ValueError("expected host:port")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_driver(cls, value: str) -> str:
        try:
            driver = make_url(value).drivername
        except ArgumentError as error:
            raise ValueError("not a database URL") from error
        if driver not in _DRIVERS:
            raise ValueError(f"the driver must be one of {', '.join(_DRIVERS)}")
        return value

    @property
    def address(self) -> tuple[str, int]:
        """Where to listen, as (host without brackets, port)."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    def database(self) -> URL:
        """The database's URL with the password from its file."""
        url = make_url(self.database_url)
        if self.database_password_file is None:
            return url
        return url.set(password=self.database_password_file.read_text(encoding="utf-8").strip())

    def admin_token(self) -> str:
        """The token in `admin_token_file`, "" without one."""
        return _text(self.admin_token_file)

    def webhook_secret(self) -> bytes:
        """The secret in `webhook_secret_file`, b"" without one."""
        return _text(self.webhook_secret_file).encode()

    def bus_limits(self) -> BusLimits:
        """What consumers of new routes are created with."""
        return BusLimits(replicas=self.bus_replicas, delivery_ack_wait=timedelta(seconds=self.ack_wait_s))


def _text(path: Path | None) -> str:
    return path.read_text(encoding="utf-8").strip() if path is not None else ""
