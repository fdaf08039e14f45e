"""What all replicas of this gate know together about accounts: failed logins, what was sent, and which app-passwords were used.

A replica tells the others what happens (news, which they add) and, when one asks because it has just come, all that it knows (which is
merged by the larger figure). So figures are near the truth and not exact: an event that is told while somebody asks may count twice, what
happened on both sides while the bus was away counts once, and news is up to half a second old. Pure: peers.py carries it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from postern_core.accounts import AccountNews, FailuresOf, PasswordUse
from postern_core.policy import Throttling
from postern_ingress_auth.counts import Counts
from postern_ingress_auth.throttle import Slowed, Throttle

_REMEMBERED: Final = 20_000
_AT_ONCE: Final = 2000  # rows of one piece of news, which must fit a broker message


class Shared:
    """`rules` gives the throttling in force. `on_news` is called when there is some that cannot wait."""

    def __init__(self, origin: str, rules: Callable[[], Throttling]) -> None:
        self.origin = origin
        self.counts = Counts()
        self.on_news: Callable[[AccountNews], None] = lambda _: None
        self._rules = rules
        self._throttle = Throttle()
        self._uses: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._untold_uses: list[PasswordUse] = []

    # --- what happens here

    def is_blocked(self, network: str, name: str) -> bool:
        return self._throttle.is_blocked(network, name, time.monotonic())

    def failed(self, network: str, name: str, *, exists: bool) -> Slowed:
        """A login failed."""
        slowed = self._throttle.failed(network, name, time.monotonic(), self._rules(), exists=exists)
        self.on_news(AccountNews(origin=self.origin, failed=((network, name, exists),)))
        return slowed

    def succeeded(self, network: str, name: str) -> None:
        """A login worked."""
        self._throttle.succeeded(network, name)
        self.on_news(AccountNews(origin=self.origin, succeeded=((network, name),)))

    def used(self, user: str, password_id: str) -> None:
        """It was this app-password."""
        use = PasswordUse(user.casefold(), password_id, datetime.now(UTC))
        self._note_use(use)
        self._untold_uses.append(use)

    def clear(self, key: str) -> int:
        """Forget the failures of a key, of all for ""."""
        cleared = self._throttle.clear(key)
        self.on_news(AccountNews(origin=self.origin, cleared=(key,)))
        return cleared

    def suspect(self, mark: str) -> bool:
        """Whether nobody has told of this yet."""
        is_new = self.counts.suspect(mark)
        if is_new:
            self.on_news(AccountNews(origin=self.origin, suspected=(mark,)))
        return is_new

    # --- what is known

    def failures(self) -> tuple[FailuresOf, ...]:
        return tuple(self._throttle.known(time.monotonic(), self._rules()))

    def uses(self) -> tuple[PasswordUse, ...]:
        return tuple(PasswordUse(user, password_id, at) for (user, password_id), at in self._uses.items())

    # --- what is told

    def untold(self) -> AccountNews | None:
        """What could wait, None when there is none."""
        uses, self._untold_uses = tuple(self._untold_uses), []
        sent = self.counts.take_untold()
        return AccountNews(origin=self.origin, sent=sent, used=uses) if sent or uses else None

    def everything(self) -> Iterator[AccountNews]:
        """All that is known, for somebody who asks."""
        failures, totals, uses = self.failures(), tuple(self.counts.totals(time.time())), self.uses()
        for start in range(0, max(len(failures), len(totals), len(uses)), _AT_ONCE):
            piece = slice(start, start + _AT_ONCE)
            yield AccountNews(origin=self.origin, failures=failures[piece], totals=totals[piece], used=uses[piece])

    def hear(self, news: AccountNews) -> None:
        """What another replica tells."""
        now, rules = time.monotonic(), self._rules()
        for network, name, exists in news.failed:
            self._throttle.failed(network, name, now, rules, exists=exists)
        for network, name in news.succeeded:
            self._throttle.succeeded(network, name)
        for key in news.cleared:
            self._throttle.clear(key)
        for failures in news.failures:
            self._throttle.merge(failures, now)
        for sent in news.sent:
            self.counts.heard(sent)
        for total in news.totals:
            self.counts.merge(total)
        for mark in news.suspected:
            self.counts.suspect(mark)
        for use in news.used:
            self._note_use(use)

    def _note_use(self, use: PasswordUse) -> None:
        key = (use.user, use.id)
        self._uses[key] = max(use.at, self._uses.get(key, use.at))
        self._uses.move_to_end(key)
        while len(self._uses) > _REMEMBERED:
            self._uses.popitem(last=False)
