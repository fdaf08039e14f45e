"""Settings that both gates have, beside those of the bus."""

from __future__ import annotations

from pydantic import Field, field_validator

from postern_core.settings import BusSettings
from postern_smtp.resolver import Resolver, parse_dns_servers


class GateSettings(BusSettings):
    """POSTERN_* of either gate."""

    dns_servers: str = Field(
        default="",
        description="DNS servers to ask, address or address:port, separated by commas, IPv6 with a port in brackets; none: those of the system.",
    )

    @field_validator("dns_servers")
    @classmethod
    def _dns_servers(cls, value: str) -> str:
        parse_dns_servers(value)
        return value.strip()

    def resolver(self) -> Resolver:
        """For all checks of this process: what one asked, another need not ask."""
        return Resolver(parse_dns_servers(self.dns_servers))
