"""Relay domains at the HTTP edge."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from postern_api.fields import Body, Flag, Line
from postern_api.policy.addresses import checked_pattern
from postern_core.policy import RelayDomain


class DomainBody(Body):
    """A domain under the administrator's control."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pattern": "example.com", "route": "", "accept": True}, {"pattern": "*.example.com"}]}
    )

    pattern: Line = Field(description="`example.com`, or `*.example.com` for every name below it (and not example.com itself).")
    route: Line = Field(default="", description="The route that its mail takes; empty: the default route.")
    accept: Flag = Field(default=True, description="Take mail for it from anybody; false: the entry only routes.")

    def to_object(self) -> RelayDomain:
        return RelayDomain(pattern=checked_pattern(self.pattern), route=self.route, accept=self.accept)

    @classmethod
    def of(cls, domain: RelayDomain) -> DomainBody:
        return cls(pattern=domain.pattern, route=domain.route, accept=domain.accept)
