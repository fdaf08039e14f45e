"""How the anonymous gate verifies recipients, and greylisting, at the HTTP edge: structs of `postern_core.policy.recipients`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from pydantic import Field

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Line, Seconds, Whole, examples
from postern_core.policy import ListenerGreylisting, ListenerVerification, WhenUnavailable
from postern_core.policy.networks import normalise_network

_DEFAULTS = ListenerVerification()
_GREYLISTING = ListenerGreylisting()
_AtOnce = Annotated[Whole, Field(ge=1, le=1000)]


class VerificationBody(Body):
    """How callouts and directory lookups are made, and for how long their answers are good."""

    model_config = examples(msgspec.to_builtins(ListenerVerification(timeout_s=5.0)), {})

    when_unavailable: WhenUnavailable = Field(
        default=_DEFAULTS.when_unavailable, description="Nobody can be asked: defer (451), or accept the recipient unasked."
    )
    timeout_s: Annotated[Seconds, Field(le=30)] = Field(
        default=_DEFAULTS.timeout_s, description="One question, with all next hops and the wait for its turn."
    )
    known_s: Seconds = Field(default=_DEFAULTS.known_s, description="For how long it is good that a mailbox exists.")
    unknown_s: Seconds = Field(default=_DEFAULTS.unknown_s, description="For how long it is good that one does not.")
    max_remembered: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        default=_DEFAULTS.max_remembered, description="Answers, in each replica."
    )
    max_at_once: _AtOnce = Field(default=_DEFAULTS.max_at_once, description="Questions under way, in each replica.")
    max_at_once_per_route: _AtOnce = Field(
        default=_DEFAULTS.max_at_once_per_route, description="Of them to one route, or to the directory."
    )
    max_at_once_per_client: _AtOnce = Field(
        default=_DEFAULTS.max_at_once_per_client, description="Of them for one IPv4 /24 or IPv6 /64."
    )

    def to_object(self) -> ListenerVerification:
        return ListenerVerification(**self.model_dump())

    @classmethod
    def of(cls, part: ListenerVerification) -> VerificationBody:
        return cls(**msgspec.structs.asdict(part))


class GreylistingBody(Body):
    """Greylisting: who was never seen with this sender and recipient is asked to come again."""

    model_config = examples({"enabled": True, "delay_s": 120, "exempt_networks": ["192.0.2.0/24"]}, {})

    enabled: Flag = Field(default=_GREYLISTING.enabled, description="Off: nobody is asked to come again.")
    delay_s: Seconds = Field(default=_GREYLISTING.delay_s, description="Coming again before that does not help.")
    retry_window_s: Seconds = Field(
        default=_GREYLISTING.retry_window_s, description="Who comes again after that is a stranger again. Longer than delay_s."
    )
    known_s: Seconds = Field(
        default=_GREYLISTING.known_s, description="For how long somebody who came again is known, since his last mail."
    )
    whitelist_after: Annotated[Whole, Field(ge=1, le=10_000)] | None = Field(
        default=_GREYLISTING.whitelist_after,
        description="Senders and recipients with which a network has to come again until it is never asked to; null: never.",
    )
    exempt_networks: Annotated[list[Line], Field(max_length=10_000)] = Field(
        default_factory=list, description="Addresses and networks that are never asked to come again."
    )

    def to_object(self) -> ListenerGreylisting:
        if self.retry_window_s <= self.delay_s:
            raise InvalidError(
                "window_below_delay", "retry_window_s must be longer than delay_s: nobody could come again in time"
            )
        try:
            networks = tuple(map(normalise_network, self.exempt_networks))
        except ValueError as error:
            raise InvalidError("invalid_network", str(error)) from error
        return ListenerGreylisting(**self.model_dump(exclude={"exempt_networks"}), exempt_networks=networks)

    @classmethod
    def of(cls, part: ListenerGreylisting) -> GreylistingBody:
        return cls(**msgspec.structs.asdict(part) | {"exempt_networks": list(part.exempt_networks)})
