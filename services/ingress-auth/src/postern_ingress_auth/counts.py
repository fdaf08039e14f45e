"""How much each user and each domain has sent lately, all replicas together. Pure: it is given `now` in seconds since the epoch.

A figure is that of the window in progress (an hour or a day of UTC) and, of the one before, the part that a window of the same length that
ends now still overlaps, as if it had come evenly: a little off for what came in bursts, and never over twice a limit. Fails open: at
most 20,000 users and domains are remembered, the oldest are forgotten first.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from postern_core.accounts import SentBy

HOUR_S: Final = 3600
DAY_S: Final = 86400
WINDOWS_S: Final = (HOUR_S, DAY_S)
_REMEMBERED: Final = 2 * 20_000  # an hour and a day each


@dataclass(frozen=True, slots=True)
class Sent:
    """In a window that ends now."""

    messages: int
    recipients: int


@dataclass(slots=True)
class _Slot:
    window: int
    messages: int = 0
    recipients: int = 0
    messages_before: int = 0  # in the window before
    recipients_before: int = 0

    def roll(self, window: int) -> None:
        if window > self.window:
            is_next = window == self.window + 1
            self.messages_before, self.recipients_before = (self.messages, self.recipients) if is_next else (0, 0)
            self.window, self.messages, self.recipients = window, 0, 0


class Counts:
    """See the module."""

    def __init__(self) -> None:
        self._slots: OrderedDict[tuple[str, int], _Slot] = OrderedDict()
        self._untold: dict[tuple[str, int, int], Sent] = {}
        self._suspected: OrderedDict[str, None] = OrderedDict()

    def sent(self, key: str, window_s: int, now: float) -> Sent:
        slot = self._slots.get((key, window_s))
        if slot is None:
            return Sent(0, 0)
        window = int(now // window_s)
        slot.roll(window)
        left = 1.0 - (now / window_s - window)
        return Sent(
            slot.messages + math.ceil(slot.messages_before * left), slot.recipients + math.ceil(slot.recipients_before * left)
        )

    def add(self, key: str, now: float, *, messages: int = 0, recipients: int = 0) -> None:
        """Note what is being sent, for the other replicas too."""
        for window_s in WINDOWS_S:
            window = int(now // window_s)
            self.heard(SentBy(key, window_s, window, messages, recipients))
            untold = self._untold.get((key, window_s, window), Sent(0, 0))
            self._untold[key, window_s, window] = Sent(untold.messages + messages, untold.recipients + recipients)

    def heard(self, more: SentBy) -> None:
        """Add what was sent."""
        slot = self._slot(more)
        if slot.window == more.window:
            slot.messages += more.messages
            slot.recipients += more.recipients
        elif slot.window == more.window + 1:
            slot.messages_before += more.messages
            slot.recipients_before += more.recipients

    def merge(self, theirs: SentBy) -> None:
        """What another replica knows altogether: the larger counts, since both may have heard of the same messages."""
        slot = self._slot(theirs)
        if slot.window == theirs.window:
            slot.messages, slot.recipients = max(slot.messages, theirs.messages), max(slot.recipients, theirs.recipients)
        elif slot.window == theirs.window + 1:
            slot.messages_before = max(slot.messages_before, theirs.messages)
            slot.recipients_before = max(slot.recipients_before, theirs.recipients)

    def take_untold(self) -> tuple[SentBy, ...]:
        """What the other replicas have not been told yet."""
        untold, self._untold = self._untold, {}
        return tuple(SentBy(*key, sent.messages, sent.recipients) for key, sent in untold.items())

    def totals(self, now: float) -> Iterator[SentBy]:
        """All that counts still."""
        for (key, window_s), slot in self._slots.items():
            if slot.window < now // window_s - 1:
                continue
            yield SentBy(key, window_s, slot.window - 1, slot.messages_before, slot.recipients_before)
            yield SentBy(key, window_s, slot.window, slot.messages, slot.recipients)

    def suspect(self, mark: str) -> bool:
        """Whether this is new."""
        is_new = mark not in self._suspected
        self._suspected[mark] = None
        while len(self._suspected) > _REMEMBERED:
            self._suspected.popitem(last=False)
        return is_new

    def _slot(self, sent: SentBy) -> _Slot:
        key = (sent.key, sent.window_s)
        slot = self._slots.setdefault(key, _Slot(sent.window))
        slot.roll(sent.window)
        self._slots.move_to_end(key)
        while len(self._slots) > _REMEMBERED:
            self._slots.popitem(last=False)
        return slot
