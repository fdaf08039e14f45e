"""When a deferred job is tried again, when its sender is told of the delay, and when it is given up. Pure.

Intervals count from the attempt before; the last one repeats until expiry. An attempt is also made at the moment of the delay notice and
at the moment of expiry, so that what is then told is true. Whatever the schedule and the clock say, the next attempt lies ahead.
Source: OLD-PRODUCT 6.01–6.03; RFC 5321 section 4.5.4.1.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from postern_core.policy import RetrySchedule

_SHORTEST_S: Final = 0.5  # a schedule of zeros must not become a busy loop
_FALLBACK_S: Final = 900.0  # for a schedule without intervals


def interval(schedule: RetrySchedule, attempts: int) -> timedelta:
    """The pause after attempt number `attempts` (from 1)."""
    if not schedule.intervals_s:
        return timedelta(seconds=_FALLBACK_S)
    index = min(max(attempts, 1), len(schedule.intervals_s)) - 1
    return timedelta(seconds=max(schedule.intervals_s[index], _SHORTEST_S))


def expires_at(schedule: RetrySchedule, queued_at: datetime) -> datetime:
    """From when on a further failure is final."""
    return queued_at + timedelta(seconds=max(schedule.expiry_s, 0.0))


def delay_notice_at(schedule: RetrySchedule, queued_at: datetime) -> datetime | None:
    """When the sender is told that the mail is still on its way; None: never."""
    if schedule.delay_notice_s is None:
        return None
    return queued_at + timedelta(seconds=max(schedule.delay_notice_s, 0.0))


def next_attempt(
    schedule: RetrySchedule, *, queued_at: datetime, now: datetime, attempts: int, delay_notified: bool, jitter: float = 0.0
) -> datetime:
    """When to try again after `attempts` attempts, the last of them at `now`. `jitter` is the share of the interval to add."""
    pause = interval(schedule, attempts)
    wanted = now + pause + pause * jitter
    notice = None if delay_notified else delay_notice_at(schedule, queued_at)
    earliest = now + timedelta(seconds=_SHORTEST_S)
    for moment in (notice, expires_at(schedule, queued_at)):
        if moment is not None and now < moment < wanted:
            wanted = max(moment, earliest)
    return wanted
