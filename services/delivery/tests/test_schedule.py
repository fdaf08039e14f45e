"""The retry schedule: whatever the policy says, it goes forward and comes to an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.policy import RetrySchedule
from postern_delivery.schedule import delay_notice_at, expires_at, interval, next_attempt

T0 = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

schedules = st.builds(
    RetrySchedule,
    intervals_s=st.lists(st.floats(0, 1e5), max_size=6).map(tuple),
    delay_notice_s=st.none() | st.floats(0, 1e6),
    expiry_s=st.floats(0, 1e6),
)


def test_the_old_product_s_intervals() -> None:
    schedule = RetrySchedule()
    pauses = [interval(schedule, attempts) / MINUTE for attempts in range(1, 8)]
    assert pauses == [15, 30, 60, 240, 240, 240, 240]


def test_attempts_fall_on_the_delay_notice_and_on_expiry() -> None:
    schedule, at, attempts, notified, moments = RetrySchedule(), T0, 1, False, []
    while at < expires_at(schedule, T0):
        at = next_attempt(schedule, queued_at=T0, now=at, attempts=attempts, delay_notified=notified)
        attempts += 1
        notified = notified or at >= T0 + timedelta(hours=12)
        moments.append((at - T0) / MINUTE)
    assert moments[:7] == [15, 45, 105, 345, 585, 720, 960]
    assert moments[-1] == 48 * 60


def test_mail_that_waited_long_before_its_first_attempt_gets_another_one() -> None:
    now = T0 + timedelta(days=5)
    after = next_attempt(RetrySchedule(), queued_at=T0, now=now, attempts=1, delay_notified=False)
    assert after == now + 15 * MINUTE


@pytest.mark.parametrize("notice", [None, 60.0])
def test_no_notice_when_it_is_switched_off(notice: float | None) -> None:
    found = delay_notice_at(RetrySchedule(delay_notice_s=notice), T0)
    assert found == (None if notice is None else T0 + MINUTE)


@given(schedules, st.integers(0, 50), st.floats(0, 2e6), st.booleans(), st.floats(0, 0.5))
def test_the_next_attempt_lies_ahead(
    schedule: RetrySchedule, attempts: int, waited_s: float, notified: bool, jitter: float
) -> None:
    now = T0 + timedelta(seconds=waited_s)
    after = next_attempt(schedule, queued_at=T0, now=now, attempts=attempts, delay_notified=notified, jitter=jitter)
    assert after >= now + timedelta(seconds=0.5)
    assert after <= now + interval(schedule, attempts) * 1.5 + timedelta(seconds=0.5)


@given(
    st.builds(
        RetrySchedule,
        intervals_s=st.lists(st.floats(0, 5000), max_size=5).map(tuple),
        delay_notice_s=st.none() | st.floats(0, 1e4),
        expiry_s=st.floats(0, 200),
    ),
    st.floats(0, 0.5),
)
def test_expiry_is_always_reached_and_never_far_overrun(schedule: RetrySchedule, jitter: float) -> None:
    end, at, attempts = expires_at(schedule, T0), T0, 1
    while at < end:
        at = next_attempt(schedule, queued_at=T0, now=at, attempts=attempts, delay_notified=attempts > 1, jitter=jitter)
        attempts += 1
        assert attempts < 2000
    assert at <= max(end, T0) + timedelta(seconds=1)
