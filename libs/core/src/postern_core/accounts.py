"""What the replicas of the authenticated gate tell each other about accounts, and what the api asks them. Core NATS, JSON, nothing is kept.

`peers.ingress-auth`: `AccountNews`, told to all replicas inside the gates' own broker account. Times in it are ages, so that clocks need not agree.
`control.ingress-auth.<verb>.+`: requests of the api; any replica answers, since each knows what all know.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final

import msgspec

PEERS_SUBJECT: Final = "peers.ingress-auth"
_ANY_REPLICA: Final = "+"  # stands where a request to one replica names it, and names none
CONTROL_SUBJECTS: Final = f"control.ingress-auth.*.{_ANY_REPLICA}"


class FailuresOf(msgspec.Struct, frozen=True, array_like=True):
    """How often logins of a network or a name failed."""

    key: str  # `address:<network>` or `user:<name, case-folded>`
    count: int
    age_s: float  # since the last
    blocked_s: float = 0.0  # for how much longer it is not heard
    exists: bool = True  # False: a name that no user has


class SentBy(msgspec.Struct, frozen=True, array_like=True):
    """What a user or a domain sent in one window of time."""

    key: str  # `user:<name, case-folded>` or `domain:<domain>`
    window_s: int  # an hour or a day
    window: int  # which since the epoch
    messages: int
    recipients: int


class PasswordUse(msgspec.Struct, frozen=True, array_like=True):
    """An app-password and when it was used last."""

    user: str  # case-folded
    id: str
    at: datetime


class AccountNews(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one replica tells the others. What it knows altogether (`failures`, `totals`) is merged by the larger, what is new is added."""

    origin: str  # the replica
    asks: bool = False  # it has just come, or come back: tell it all
    failed: tuple[tuple[str, str, bool], ...] = ()  # network, name, whether there is such a user
    succeeded: tuple[tuple[str, str], ...] = ()  # network, name
    cleared: tuple[str, ...] = ()  # keys; "" is all of them
    sent: tuple[SentBy, ...] = ()  # more than was told before
    suspected: tuple[str, ...] = ()  # what an administrator has been told of
    used: tuple[PasswordUse, ...] = ()
    failures: tuple[FailuresOf, ...] = ()
    totals: tuple[SentBy, ...] = ()


class AccountVerb(enum.StrEnum):
    """Verbs of `control.ingress-auth.<verb>.+`, with their request and answer types."""

    FAILURES_LIST = "failures-list"  # FailureQuery → FailurePage
    FAILURES_CLEAR = "failures-clear"  # FailureClearing → FailuresCleared
    PASSWORD_USES = "password-uses"  # nothing → PasswordUses


def control_subject(verb: AccountVerb) -> str:
    """Where to ask."""
    return f"control.ingress-auth.{verb.value}.{_ANY_REPLICA}"


class FailureQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which rows: the `limit` with the most failures."""

    limit: int = 100


class FailureRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network or a user whose logins failed lately."""

    key: str  # `address:<network>` or `user:<name>`
    count: int
    last_at: datetime
    blocked_until: datetime | None = None


class FailurePage(msgspec.Struct, frozen=True, kw_only=True):
    """`unknown_names` were tried that no user has; they are not shown, for people type passwords where names belong."""

    rows: tuple[FailureRow, ...]
    total: int
    unknown_names: int


class FailureClearing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Forget one key, or all of them when it is ""."""

    key: str = ""
    actor: str = ""


class FailuresCleared(msgspec.Struct, frozen=True, kw_only=True):
    cleared: int


class PasswordUses(msgspec.Struct, frozen=True, kw_only=True):
    """The app-passwords that were used since this gate's replicas started, as far as they remember."""

    uses: tuple[PasswordUse, ...]
