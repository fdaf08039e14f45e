"""Failed logins slow down who makes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postern_core.accounts import FailuresOf
from postern_core.policy import Throttling
from postern_ingress_auth.throttle import Throttle

RULES = Throttling(network_limit=None)


def delays(throttle: Throttle, *failures: tuple[str, str], rules: Throttling = RULES) -> list[float]:
    return [throttle.failed(network, name, 0, rules).delay_s for network, name in failures]


def test_each_failure_of_a_network_or_a_name_doubles_the_delay() -> None:
    throttle = Throttle()
    assert delays(throttle, *(("192.0.2.1", f"u{n}") for n in range(6))) == [1, 2, 4, 8, 16, 16]
    assert delays(throttle, ("192.0.2.2", "other"), ("192.0.2.3", "OTHER")) == [1, 2]


def test_a_network_is_turned_away_after_many_failures_for_longer_each_time() -> None:
    throttle, rules = Throttle(), Throttling(network_limit=3, first_block_s=100, longest_block_s=350, forget_s=600)
    for now in range(3):
        assert not throttle.is_blocked("192.0.2.1", "anybody", now)
        throttle.failed("192.0.2.1", "u", now, rules)
    assert throttle.is_blocked("192.0.2.1", "anybody", 101)
    assert not throttle.is_blocked("192.0.2.2", "u", 3)
    now = 102.0
    for block_s in (200, 350, 350):
        assert not throttle.is_blocked("192.0.2.1", "anybody", now)
        throttle.failed("192.0.2.1", "u", now, rules)
        assert throttle.is_blocked("192.0.2.1", "anybody", now + block_s - 1)
        now += block_s
    # forgotten: a first failure again
    assert throttle.failed("192.0.2.1", "w", now + 600, rules).delay_s == 1


def test_a_name_is_turned_away_only_where_the_rules_say_so() -> None:
    throttle = Throttle()
    for n in range(10):
        throttle.failed(f"192.0.2.{n}", "anna", 0, Throttling(network_limit=None))
    assert not throttle.is_blocked("192.0.2.99", "anna", 1)
    throttle.failed("192.0.2.10", "Anna", 0, Throttling(user_limit=11))
    assert throttle.is_blocked("192.0.2.99", "ANNA", 1)
    assert not throttle.is_blocked("192.0.2.99", "bert", 1)


def test_what_is_told_is_told_once_and_at_each_block() -> None:
    throttle, rules = Throttle(), Throttling(first_delay_s=1, longest_delay_s=4, network_limit=5)
    told = [throttle.failed("192.0.2.1", f"u{n}", 0, rules).told for n in range(6)]
    assert told == [(), (), ("address:192.0.2.1",), (), ("address:192.0.2.1",), ("address:192.0.2.1",)]


def test_success_forgives_the_user_and_a_little_of_the_network() -> None:
    throttle = Throttle()
    delays(throttle, *[("192.0.2.1", "u")] * 3)
    throttle.succeeded("192.0.2.1", "u")
    assert delays(throttle, ("192.0.2.9", "u"), ("192.0.2.1", "v")) == [1, 4]


def test_what_another_replica_knows_is_merged_and_not_added() -> None:
    here, there = Throttle(), Throttle()
    rules = Throttling(network_limit=3, first_block_s=100)
    for name in ("a", "b", "c"):
        there.failed("192.0.2.1", name, 1000, rules, exists=name == "a")
    here.failed("192.0.2.1", "a", 5, rules)
    for _ in range(2):
        for failures in there.known(1010, rules):
            here.merge(failures, 20)  # another clock
    assert here.is_blocked("192.0.2.1", "", 109)
    assert not here.is_blocked("192.0.2.1", "", 111)
    assert sorted((each.key, each.count, each.exists) for each in here.known(21, rules)) == [
        ("address:192.0.2.1", 3, True),
        ("user:a", 1, True),
        ("user:b", 1, False),
        ("user:c", 1, False),
    ]


def test_clearing_one_or_all() -> None:
    throttle = Throttle()
    delays(throttle, ("192.0.2.1", "a"), ("192.0.2.2", "b"))
    assert (throttle.clear("user:a"), throttle.clear("user:a"), throttle.clear("")) == (1, 0, 3)


def test_the_oldest_are_forgotten_first() -> None:
    throttle = Throttle()
    throttle.merge(FailuresOf("address:192.0.2.1", 9, 0.0), 0)
    for n in range(10_000):
        throttle.failed(f"n{n}", f"u{n}", 0, RULES)
    assert delays(throttle, ("192.0.2.1", "x"), ("n9999", "x")) == [1, 2]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("uv"), st.floats(0, 10_000)), max_size=80))
def test_delays_and_blocks_stay_between_nothing_and_the_longest(failures: list[tuple[str, str, float]]) -> None:
    throttle, rules = Throttle(), Throttling(first_delay_s=0.5, network_limit=10, user_limit=20, longest_block_s=3000)
    for network, name, now in sorted(failures, key=lambda failure: failure[2]):
        assert 0.5 <= throttle.failed(network, name, now, rules).delay_s <= 16
        assert all(known.blocked_s <= 3000 for known in throttle.known(now, rules))
