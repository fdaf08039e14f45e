"""Where a gate listens, at the HTTP edge: `postern_core.policy.binds`."""

from __future__ import annotations

import ipaddress
from itertools import combinations
from typing import Annotated

from pydantic import Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Line, Whole, examples
from postern_core.policy import ANYWHERE, Bind, ListenerBinds

_MOST: int = 64


class BindBody(Body):
    """One address and port."""

    address: Line = Field(description="An IPv4 or IPv6 address of the machine, 0.0.0.0 or :: for all of that kind, * for all.")
    port: Whole = Field(ge=1, le=65535)
    tls: Flag = Field(default=False, description="TLS from the first octet, as at port 465; authenticated gate.")

    def to_object(self) -> Bind:
        text = self.address.strip()
        if text == ANYWHERE:
            return Bind(address=text, port=self.port, tls=self.tls)
        try:
            address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
        except ValueError as error:
            raise InvalidError("invalid_bind", f"{text!r} is neither an IPv4 or IPv6 address nor {ANYWHERE}") from error
        if address.is_multicast or "%" in text or (address.version == 6 and address.ipv4_mapped is not None):
            raise InvalidError("invalid_bind", f"nothing listens at {text!r}: it is a multicast, mapped or scoped address")
        return Bind(address=str(address), port=self.port, tls=self.tls)


class BindsBody(Body):
    """Where the gate listens; none: where its environment says (POSTERN_LISTEN…)."""

    model_config = examples(
        {"binds": [{"address": "*", "port": 587}, {"address": "192.0.2.1", "port": 465, "tls": True}]},
        {"binds": [{"address": "192.0.2.1", "port": 25}, {"address": "2001:db8::25", "port": 25}]},
        {},
    )

    binds: Annotated[list[BindBody], Field(max_length=_MOST)] = Field(
        default_factory=list,
        description="Sockets that stay are not touched, sessions go on. What a replica cannot open is in its status, and tried again.",
    )

    def to_object(self) -> ListenerBinds:
        """InvalidError for what is no address, or for two that cannot listen side by side."""
        binds = tuple(body.to_object() for body in self.binds)
        for one, other in combinations(binds, 2):
            if one.port == other.port and _overlap(one.address, other.address):
                raise InvalidError("binds_overlap", f"{one.address} and {other.address} cannot both listen at port {one.port}")
        return ListenerBinds(binds=binds)

    @classmethod
    def of(cls, part: ListenerBinds) -> BindsBody:
        return cls(binds=[BindBody(address=bind.address, port=bind.port, tls=bind.tls) for bind in part.binds])


def _overlap(one: str, other: str) -> bool:
    if one == other or ANYWHERE in (one, other):
        return True
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return first.version == second.version and (first.is_unspecified or second.is_unspecified)
