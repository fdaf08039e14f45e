"""What the policy says of one session at this moment: a transaction keeps the rules under which it began, all else sees the newest. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from postern_core.errors import Reply
from postern_core.notices import NoticeKind, TellNotice
from postern_core.policy import GateLimits, ListenerExtensions
from postern_smtp.filters import Filters
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.session import Session

# while there is no policy
_NO_LIMITS: Final = GateLimits()
_NO_FILTERS: Final = Filters()
_EXTENSIONS: Final = ListenerExtensions()


class InForce(msgspec.Struct, frozen=True):
    """What the policy says of a session at one moment."""

    profile: GateProfile  # with TLS and AUTH as the policy has them
    limits: GateLimits = _NO_LIMITS
    filters: Filters = _NO_FILTERS
    offered: ListenerExtensions = _EXTENSIONS


def _untold(kind: NoticeKind, about: str, **fields: str | int | float | bool) -> None:
    """For a dialogue that nobody listens to."""


def _never() -> Reply | None:
    """For a gate that is never overloaded."""
    return None


class RulesInForce:
    """`newest_rules` gives the policy in force, None when there is none yet; `unavailable` the reply to MAIL while mail cannot be stored,
    None when it can; `notice` is told of what is refused. `busy` is asked before a transaction begins, and takes it to begin when it has no
    refusal."""

    def __init__(
        self,
        session: Session,
        profile: GateProfile,
        newest_rules: Callable[[], GateRules | None],
        unavailable: Callable[[], Reply | None],
        notice: TellNotice = _untold,
        busy: Callable[[], Reply | None] = _never,
    ) -> None:
        self.session = session
        self._gate_profile = profile
        self._newest_rules = newest_rules
        self._rules: GateRules | None = None  # that `_in_force` was made from
        self._in_force = InForce(profile)
        self._unavailable = unavailable
        self._notice = notice
        self._busy = busy

    @property
    def in_force(self) -> InForce:
        """For a transaction the rules under which it began, for all else the newest."""
        transaction = self.session.transaction
        rules = transaction.rules if transaction is not None else self._newest_rules()
        if rules is not self._rules:
            self._rules, self._in_force = rules, self._said(rules)
        return self._in_force

    def _said(self, rules: GateRules | None) -> InForce:
        if rules is None:
            return InForce(self._gate_profile)
        return InForce(self._gate_profile.under(rules.listener), rules.limits, rules.filters, rules.listener.extensions)

    @property
    def tls_required(self) -> bool:
        """Whether nothing goes before TLS."""
        return self.in_force.profile.tls_required

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Those of AUTH that the client may use now."""
        return self.session.mechanisms(self.in_force.profile)

    @property
    def hostname(self) -> str:
        rules = self._newest_rules()
        return rules.hostname if rules is not None else self._gate_profile.fallback_hostname

    @property
    def _before_tls(self) -> bool:
        return not self.session.tls and self.in_force.profile.tls_required
