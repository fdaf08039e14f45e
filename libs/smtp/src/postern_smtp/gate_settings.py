"""Settings that both gates have, beside those of the bus."""

from __future__ import annotations

from typing import Final

from pydantic import Field, field_validator

from postern_core.settings import WorkerSettings
from postern_smtp.resolver import Resolver, parse_dns_servers

LEAST_MEMORY_BYTES: Final = 4 * 1024 * 1024


class GateSettings(WorkerSettings):
    """POSTERN_* of either gate."""

    dns_servers: str = Field(
        default="",
        description="DNS servers to ask, address or address:port, separated by commas, IPv6 with a port in brackets; none: those of the system.",
    )

    memory_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=LEAST_MEMORY_BYTES,
        description="Message data that all sessions together may hold, in bytes; over it, senders get 452 4.3.1. Several workers share it.",
    )

    @field_validator("dns_servers")
    @classmethod
    def _dns_servers(cls, value: str) -> str:
        parse_dns_servers(value)
        return value.strip()

    def resolver(self) -> Resolver:
        """For all checks of this process: what one asked, another need not ask."""
        return Resolver(parse_dns_servers(self.dns_servers))

    def workers_share(self) -> dict[str, str]:
        """What each of several workers gets of what is set for all of them."""
        return {"POSTERN_MEMORY_BYTES": str(max(self.memory_bytes // self.workers, LEAST_MEMORY_BYTES))}
