"""What becomes of mail that cannot be screened whole, when no rule decides: one answer for each kind, and none of them silent."""

from __future__ import annotations

import enum

import msgspec

from postern_core.verdict import Unscannable


class UnscannableAction(enum.StrEnum):
    """What is done with it."""

    HOLD = "hold"  # it waits in quarantine
    PASS = "pass"  # it goes on, with a header field that says what was not screened
    DELETE = "delete"  # it ends; the disposition says why


class UnscannablePolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answers. `poison` is never `pass`: whoever finds a way to break the inspection would have found one around it."""

    malformed: UnscannableAction = UnscannableAction.HOLD
    encrypted: UnscannableAction = UnscannableAction.HOLD
    limit: UnscannableAction = UnscannableAction.HOLD
    incomplete: UnscannableAction = UnscannableAction.HOLD
    poison: UnscannableAction = UnscannableAction.HOLD

    def __post_init__(self) -> None:
        if self.poison is UnscannableAction.PASS:
            raise ValueError("a message that breaks its inspection cannot pass: hold or delete it")

    def answer(self, kind: Unscannable) -> UnscannableAction:
        """What is done with mail of this kind."""
        action: UnscannableAction = getattr(self, kind.value)
        return action
