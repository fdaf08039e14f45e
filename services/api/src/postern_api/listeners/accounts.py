"""What a listener asks of accounts, at the HTTP edge: the fields of the structs in `postern_core.policy.accounts`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from pydantic import ConfigDict, Field, Strict

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Seconds, Whole, examples
from postern_core.policy import Rates, SenderRules, SendingRates, Throttling

Most = Annotated[Whole, Field(ge=1, le=1_000_000_000)]
_THROTTLING = Throttling()


class ThrottlingBody(Body):
    """How failed logins slow down whoever makes them; null switches a limit off, an absent field takes its default."""

    model_config = ConfigDict(json_schema_extra={"examples": [msgspec.to_builtins(msgspec.structs.asdict(_THROTTLING))]})

    first_delay_s: Annotated[float, Strict(), Field(ge=0, le=30, allow_inf_nan=False)] = Field(
        default=_THROTTLING.first_delay_s,
        description="Of the answer to a first failure; doubles with each further one of the network or for the user name …",
    )
    longest_delay_s: Annotated[float, Strict(), Field(ge=0, le=60, allow_inf_nan=False)] = Field(
        default=_THROTTLING.longest_delay_s, description="… up to this."
    )
    forget_s: Seconds = Field(default=_THROTTLING.forget_s, description="All is forgotten after this time without a failure.")
    network_limit: Most | None = Field(
        default=_THROTTLING.network_limit,
        description="Failures of an IPv4 address or an IPv6 /64, then its logins get 454 4.7.0 unheard for a while.",
    )
    user_limit: Most | None = Field(
        default=_THROTTLING.user_limit,
        description="The same for a user name. Off: else whoever knows a name can keep its owner out.",
    )
    first_block_s: Seconds = Field(
        default=_THROTTLING.first_block_s, description="For how long; doubles with each failure after the limit …"
    )
    longest_block_s: Seconds = Field(default=_THROTTLING.longest_block_s, description="… up to this.")

    def to_object(self) -> Throttling:
        if self.longest_delay_s < self.first_delay_s:
            raise InvalidError("longest_below_first", "longest_delay_s is below first_delay_s")
        if self.longest_block_s < self.first_block_s:
            raise InvalidError("longest_below_first", "longest_block_s is below first_block_s")
        return Throttling(**self.model_dump())

    @classmethod
    def of(cls, throttling: Throttling) -> ThrottlingBody:
        return cls(**msgspec.structs.asdict(throttling))


class SenderRulesBody(Body):
    """Which reverse-paths users may send with (RFC 6409 section 6.1). Each user's own are at /users."""

    model_config = examples({"listed_only": True, "null_sender": True}, {})

    listed_only: Flag = Field(default=False, description="A user without `senders` may use none (553 5.7.1); false: any.")
    null_sender: Flag = Field(
        default=True, description="Everybody may use the null reverse-path: receipts have it (RFC 8098 section 3)."
    )

    def to_object(self) -> SenderRules:
        return SenderRules(**self.model_dump())

    @classmethod
    def of(cls, rules: SenderRules) -> SenderRulesBody:
        return cls(**msgspec.structs.asdict(rules))


class SendingRatesBody(Body):
    """How much may be sent; null or absent: as much as one likes."""

    model_config = examples({"messages_per_hour": 100, "recipients_per_day": 2000}, {})

    messages_per_hour: Most | None = Field(default=None, description="450 4.7.1 to the MAIL after so many in sixty minutes.")
    messages_per_day: Most | None = Field(default=None, description="The same for twenty-four hours.")
    recipients_per_hour: Most | None = Field(default=None, description="450 4.7.1 to the RCPT after so many, and to MAIL.")
    recipients_per_day: Most | None = Field(default=None, description="The same for twenty-four hours.")

    def to_object(self) -> SendingRates:
        return SendingRates(**self.model_dump())

    @classmethod
    def of(cls, rates: SendingRates) -> SendingRatesBody:
        return cls(**msgspec.structs.asdict(rates))


class RatesBody(Body):
    """How much may be sent through a gate, all replicas together."""

    model_config = examples({"user": {"messages_per_hour": 100, "recipients_per_day": 2000}, "domain": {}}, {})

    user: SendingRatesBody = Field(default=SendingRatesBody(), description="By each user who has no rates of his own.")
    domain: SendingRatesBody = Field(default=SendingRatesBody(), description="From each domain, by all users together.")

    def to_object(self) -> Rates:
        return Rates(user=self.user.to_object(), domain=self.domain.to_object())

    @classmethod
    def of(cls, rates: Rates) -> RatesBody:
        return cls(user=SendingRatesBody.of(rates.user), domain=SendingRatesBody.of(rates.domain))
