"""Who lets go of message data when all sessions together hold too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postern_smtp.memory import Memory


class Sender:
    """A session whose message is coming in."""

    def __init__(self) -> None:
        self.let_go_times = 0

    def let_go(self) -> None:
        self.let_go_times += 1


def test_who_comes_last_lets_go_while_all_others_had_little_time() -> None:
    memory, first, last = Memory(100), Sender(), Sender()
    memory.hold(first, 90, now=0)
    memory.hold(last, 20, now=1)
    assert (first.let_go_times, last.let_go_times, memory.used_bytes) == (0, 1, 90)


def test_a_sender_that_stalls_makes_room_for_one_that_sends() -> None:
    memory, stalled, small, sending = Memory(100), Sender(), Sender(), Sender()
    memory.hold(small, 5, now=0)
    memory.hold(stalled, 90, now=0)
    memory.hold(sending, 20, now=60)
    assert (small.let_go_times, stalled.let_go_times, sending.let_go_times) == (0, 1, 0)
    assert memory.used_bytes == 25


def test_what_is_being_stored_counts_and_stays() -> None:
    memory, sender = Memory(100), Sender()
    memory.storing(150)
    memory.hold(sender, 10, now=60)
    assert (sender.let_go_times, memory.used_bytes) == (1, 150)
    memory.storing(-150)
    memory.hold(sender, 30, now=61)
    assert (sender.let_go_times, memory.used_bytes) == (1, 30)
    memory.release(sender)
    memory.release(sender)
    assert memory.used_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 80), st.integers(0, 20)), max_size=60))
def test_the_limit_holds_whoever_sends_what(steps: list[tuple[int, int, int]]) -> None:
    memory, senders, now = Memory(100), [Sender() for _ in range(5)], 0
    for who, octets, pause in steps:
        now += pause
        memory.hold(senders[who], octets, now)
        assert 0 <= memory.used_bytes <= 100
    for sender in senders:
        memory.release(sender)
    assert memory.used_bytes == 0
