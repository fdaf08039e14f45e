"""Settings of delivery: its database, and how much it does at once. Routes and the retry schedule are policy, not settings."""

from __future__ import annotations

from pydantic import Field, field_validator
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from postern_core.settings import BusSettings, ExistingFile

_DRIVERS = ("sqlite+aiosqlite", "postgresql+asyncpg")


class Settings(BusSettings):
    """Environment variables `POSTERN_*` of delivery; those of the bus come on top."""

    nats_user: str = Field(default="delivery", description="Broker user of this service.")
    database_url: str = Field(
        default="sqlite+aiosqlite:///var/queue.db",
        description="Database `queue`: sqlite+aiosqlite:///path or postgresql+asyncpg://user@host/queue. "
        "More than one replica needs PostgreSQL.",
    )
    database_password_file: ExistingFile | None = Field(default=None, description="File with the database password.")
    concurrency: int = Field(default=40, ge=1, le=1000, description="Jobs of one route that are in hand at once.")
    retry_concurrency: int = Field(default=10, ge=1, le=1000, description="Deferred jobs of one route that are tried at once.")
    connect_timeout_s: float = Field(
        default=30.0, gt=0, le=300, description="Seconds for each of name look-up, TCP connection and TLS handshake."
    )
    idle_s: float = Field(default=5.0, gt=0, le=300, description="Seconds for which an idle connection is kept.")
    attempt_limit_s: float = Field(
        default=3600.0, ge=60, le=14400, description="Seconds that one attempt at a job may take, all its transactions together."
    )
    lease_s: float = Field(
        default=60.0, ge=2, le=600, description="Seconds until a dead replica's retries are taken over; renewed while one works."
    )
    retry_jitter: float = Field(
        default=0.05, ge=0, le=0.5, description="Share of a retry interval that is added at random, so that retries spread."
    )
    ndr_full_limit_bytes: int = Field(
        default=50_000, ge=0, le=200_000, description="Messages over this size are returned with their header only, in bytes."
    )
    janitor_every_s: float = Field(
        default=30.0, ge=0.2, le=3600, description="Seconds between comparisons of the retry queue with the stored mail."
    )
    orphan_grace_s: float = Field(
        default=3600.0,
        ge=1,
        le=604800,
        description="Seconds for which a stored body must belong to no message before it is removed.",
    )

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

    def database(self) -> URL:
        """The database's URL with the password from its file."""
        url = make_url(self.database_url)
        if self.database_password_file is None:
            return url
        return url.set(password=self.database_password_file.read_text(encoding="utf-8").strip())
