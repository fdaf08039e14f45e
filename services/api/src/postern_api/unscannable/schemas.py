"""The answers to unscannable mail at the HTTP edge: the fields of `postern_core.policy.UnscannablePolicy`."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ConfigDict, Field

from postern_api.fields import Body
from postern_core.policy import UnscannableAction, UnscannablePolicy

_HOLD: Final = UnscannableAction.HOLD


class UnscannableBody(Body):
    """One answer for each kind, where no rule decides. `pass` adds the field `X-Postern-Unscannable`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"malformed": "hold", "encrypted": "pass", "limit": "hold", "incomplete": "delete", "poison": "hold"},
            ]
        }
    )

    malformed: UnscannableAction = Field(
        default=_HOLD, description="Readers may take it for different messages, or it does not parse."
    )
    encrypted: UnscannableAction = Field(default=_HOLD, description="A part cannot be opened without a password.")
    limit: UnscannableAction = Field(default=_HOLD, description="It unpacks to more than anybody looks at.")
    incomplete: UnscannableAction = Field(
        default=_HOLD, description="message/partial and message/external-body: the content is elsewhere."
    )
    poison: Literal[UnscannableAction.HOLD, UnscannableAction.DELETE] = Field(
        default=_HOLD, description="Its inspection crashed or overran its time again and again."
    )

    def to_object(self) -> UnscannablePolicy:
        return UnscannablePolicy(
            malformed=self.malformed,
            encrypted=self.encrypted,
            limit=self.limit,
            incomplete=self.incomplete,
            poison=self.poison,
        )

    @classmethod
    def of(cls, policy: UnscannablePolicy) -> UnscannableBody:
        return cls(
            malformed=policy.malformed,
            encrypted=policy.encrypted,
            limit=policy.limit,
            incomplete=policy.incomplete,
            poison=policy.poison,
        )
