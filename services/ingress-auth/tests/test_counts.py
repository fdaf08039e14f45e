"""How much was sent in the last hour and day."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postern_core.accounts import SentBy
from postern_ingress_auth.counts import DAY_S, HOUR_S, Counts, Sent

NOON = 1_800_000_000 // DAY_S * DAY_S + DAY_S // 2


def test_an_hour_is_the_last_sixty_minutes() -> None:
    counts = Counts()
    counts.add("user:a", NOON + 1800, messages=4, recipients=8)
    assert counts.sent("user:a", HOUR_S, NOON + 3599) == Sent(4, 8)
    assert counts.sent("user:a", HOUR_S, NOON + 3600) == Sent(4, 8)
    assert counts.sent("user:a", HOUR_S, NOON + 3600 + 1800) == Sent(2, 4)
    assert counts.sent("user:a", HOUR_S, NOON + 2 * 3600) == Sent(0, 0)
    assert counts.sent("user:a", DAY_S, NOON + 2 * 3600) == Sent(4, 8)
    assert counts.sent("user:b", HOUR_S, NOON) == Sent(0, 0)


def test_news_is_added_and_told_once_and_what_is_known_is_merged() -> None:
    here, there = Counts(), Counts()
    here.add("user:a", NOON, messages=1)
    here.add("user:a", NOON, recipients=3)
    there.add("user:a", NOON, messages=1, recipients=1)
    for sent in there.take_untold():
        here.heard(sent)
    assert there.take_untold() == ()
    assert here.sent("user:a", HOUR_S, NOON) == Sent(2, 4)
    for _ in range(2):
        for total in here.totals(NOON):
            there.merge(total)
    assert there.sent("user:a", HOUR_S, NOON) == there.sent("user:a", DAY_S, NOON) == Sent(2, 4)


def test_news_of_the_window_before_counts_there_and_older_news_nowhere() -> None:
    counts, window = Counts(), NOON // HOUR_S
    counts.heard(SentBy("user:a", HOUR_S, window, 1, 1))
    counts.heard(SentBy("user:a", HOUR_S, window - 1, 5, 5))
    counts.heard(SentBy("user:a", HOUR_S, window - 2, 7, 7))
    counts.merge(SentBy("user:a", HOUR_S, window - 1, 6, 4))
    assert counts.sent("user:a", HOUR_S, NOON) == Sent(7, 6)
    assert list(counts.totals(NOON + 2 * HOUR_S)) == []
    assert counts.sent("user:a", HOUR_S, NOON + 2 * HOUR_S) == Sent(0, 0)


def test_a_suspicion_is_new_once() -> None:
    counts = Counts()
    assert [counts.suspect(mark) for mark in ("a", "b", "a")] == [True, True, False]


@given(st.lists(st.tuples(st.floats(0, 4 * HOUR_S), st.integers(1, 3)), max_size=60), st.integers(1, 10))
def test_whoever_is_refused_over_a_limit_never_sends_twice_as_much_in_an_hour(tries: list[tuple[float, int]], limit: int) -> None:
    counts, taken = Counts(), []
    for after, messages in sorted(tries):
        if counts.sent("user:a", HOUR_S, NOON + after).messages + messages <= limit:
            counts.add("user:a", NOON + after, messages=messages)
            taken.append((after, messages))
    for start, _ in taken:
        assert sum(messages for after, messages in taken if start <= after < start + HOUR_S) <= 2 * limit
    for window in range(5):  # and in an hour of the clock never more than the limit
        assert sum(messages for after, messages in taken if int((NOON + after) // HOUR_S) == NOON // HOUR_S + window) <= limit
