"""What the policy says of one session at this moment: a transaction keeps the rules under which it began, all else sees the newest. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from postern_core.errors import Reply
from postern_core.notices import NoticeKind, TellNotice
from postern_core.policy import GateLimits, ListenerExtensions
from postern_smtp.filters import Filters
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.session import Session

# while there is no policy
_EXTENSIONS: Final = ListenerExtensions()
_NO_FILTERS: Final = Filters()


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
        self._under: tuple[GateRules | None, GateProfile] = (None, profile)
        self._unavailable = unavailable
        self._notice = notice
        self._busy = busy

    @property
    def limits(self) -> GateLimits:
        """The limits in force: the transaction's, else the newest."""
        if self.session.transaction is not None:
            return self.session.transaction.rules.limits
        rules = self._newest_rules()
        return rules.limits if rules is not None else GateLimits()

    @property
    def filters(self) -> Filters:
        """The filters in force: the transaction's, else the newest."""
        rules = self.session.transaction.rules if self.session.transaction is not None else self._newest_rules()
        return rules.filters if rules is not None else _NO_FILTERS

    @property
    def offered(self) -> ListenerExtensions:
        """The extensions in force: the transaction's, else the newest."""
        rules = self.session.transaction.rules if self.session.transaction is not None else self._newest_rules()
        return rules.listener.extensions if rules is not None else _EXTENSIONS

    @property
    def _profile(self) -> GateProfile:
        """The gate with TLS and AUTH as the rules in force have them: the transaction's, else the newest."""
        transaction = self.session.transaction
        rules = transaction.rules if transaction is not None else self._newest_rules()
        if rules is None:
            return self._gate_profile
        if rules is not self._under[0]:
            self._under = (rules, self._gate_profile.under(rules.listener))
        return self._under[1]

    @property
    def tls_required(self) -> bool:
        """Whether nothing goes before TLS."""
        return self._profile.tls_required

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Those of AUTH that the client may use now."""
        return self.session.mechanisms(self._profile)

    @property
    def hostname(self) -> str:
        rules = self._newest_rules()
        return rules.hostname if rules is not None else self._gate_profile.fallback_hostname

    @property
    def _before_tls(self) -> bool:
        return self._profile.tls_required and not self.session.tls
