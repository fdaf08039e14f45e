"""Failed logins slow down who makes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postern_ingress_auth.throttle import WINDOW_S, Throttle


def test_each_failure_of_an_address_or_a_name_doubles_the_delay() -> None:
    throttle = Throttle(1.0, limit=100)
    assert [throttle.failed("192.0.2.1", f"u{n}", 0) for n in range(6)] == [1, 2, 4, 8, 16, 16]
    assert throttle.failed("192.0.2.2", "other", 0) == 1
    assert throttle.failed("192.0.2.3", "OTHER", 0) == 2


def test_an_address_is_turned_away_after_many_failures_and_heard_again_later() -> None:
    throttle = Throttle(0.0, limit=3)
    for n in range(3):
        assert not throttle.is_blocked("192.0.2.1", n)
        throttle.failed("192.0.2.1", "u", n)
    assert throttle.is_blocked("192.0.2.1", 3)
    assert not throttle.is_blocked("192.0.2.2", 3)
    assert not throttle.is_blocked("192.0.2.1", 2 + WINDOW_S)


def test_success_forgives_the_user_and_a_little_of_the_address() -> None:
    throttle = Throttle(1.0, limit=100)
    for _ in range(3):
        throttle.failed("192.0.2.1", "u", 0)
    throttle.succeeded("192.0.2.1", "u")
    assert throttle.failed("192.0.2.9", "u", 0) == 1
    assert throttle.failed("192.0.2.1", "v", 0) == 4


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("uv"), st.floats(0, 10_000)), max_size=50))
def test_delays_stay_between_nothing_and_the_longest(failures: list[tuple[str, str, float]]) -> None:
    throttle = Throttle(0.5, limit=10)
    for address, name, now in sorted(failures, key=lambda failure: failure[2]):
        assert 0.5 <= throttle.failed(address, name, now) <= 16
