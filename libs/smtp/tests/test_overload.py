"""When a gate turns mail away before it comes, and that it always takes it again."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from postern_core.errors import Reply
from postern_core.ids import new_queue_id
from postern_smtp import replies
from postern_smtp.memory import Memory
from postern_smtp.overload import FIRST_PAUSE_S, LONGEST_PAUSE_S, SLOW_S, Overload, Sign, Storing

STORED = replies.queued(new_queue_id())
MIB = 1024 * 1024
LIMIT = 256 * MIB


class Sender:
    """A session whose message is coming in."""

    def let_go(self) -> None:
        pass


def stored(overload: Overload, begun: float, ended: float, reply: Reply = STORED, octets: int = 1000) -> None:
    overload.end(overload.begin(octets, begun), reply, ended)


def test_a_broker_without_room_turns_mail_away_until_one_that_is_let_through_is_stored() -> None:
    overload = Overload(Memory(LIMIT))
    stored(overload, 9, 10, replies.FULL)
    assert overload.transaction_refusal(10.1) is Sign.FULL
    assert overload.connection_refusal(10.1) is Sign.FULL
    assert overload.standing(10.1) is None  # whoever has begun may try
    assert overload.transaction_refusal(11) is None  # this one is to tell
    assert overload.transaction_refusal(11.1) is Sign.FULL
    stored(overload, 11.2, 11.3)
    assert overload.transaction_refusal(11.3) is None
    assert overload.connection_refusal(11.3) is None


def test_what_was_begun_before_the_broker_was_full_does_not_say_that_it_has_room() -> None:
    overload = Overload(Memory(LIMIT))
    small = overload.begin(10, 9)
    stored(overload, 9, 10, replies.FULL)
    overload.end(small, STORED, 10.1)
    assert overload.transaction_refusal(10.2) is Sign.FULL


def test_pauses_grow_and_end_at_the_longest() -> None:
    overload, now, let_through = Overload(Memory(LIMIT)), 0.0, []
    stored(overload, 0, 0, replies.FULL)
    while len(let_through) < 6:
        now = round(now + 0.1, 1)
        if overload.transaction_refusal(now) is None:
            let_through.append(now)
            stored(overload, now, now, replies.FULL)
    assert [round(after - before) for before, after in zip([0.0, *let_through], let_through, strict=False)] == [1, 2, 4, 5, 5, 5]


def test_a_message_under_way_for_too_long_keeps_everybody_out_until_its_end() -> None:
    overload = Overload(Memory(LIMIT))
    slow = overload.begin(1000, 0)
    assert overload.standing(SLOW_S - 0.1) is None
    assert overload.standing(SLOW_S + 0.1) is Sign.SLOW
    assert overload.connection_refusal(SLOW_S + 0.1) is Sign.SLOW
    overload.end(slow, replies.UNAVAILABLE, SLOW_S + 1)
    assert overload.standing(SLOW_S + 1) is None
    assert overload.transaction_refusal(SLOW_S + 1.1) is Sign.SLOW


def test_a_late_250_says_that_the_next_message_may_try_at_once() -> None:
    overload = Overload(Memory(LIMIT))
    stored(overload, 0, 60)
    assert overload.transaction_refusal(60) is None
    assert overload.transaction_refusal(60.1) is Sign.SLOW


def test_a_large_message_may_take_longer() -> None:
    overload = Overload(Memory(LIMIT))
    overload.begin(50 * MIB, 0)
    assert overload.standing(SLOW_S + 12) is None
    assert overload.standing(SLOW_S + 13) is Sign.SLOW


def test_a_message_that_failed_at_once_says_nothing() -> None:
    overload = Overload(Memory(LIMIT))
    stored(overload, 0, 0.1, replies.UNAVAILABLE)
    stored(overload, 0, 0.1, replies.TOO_MANY_HOPS)
    assert overload.transaction_refusal(0.2) is None


def test_memory_that_is_nearly_full_turns_mail_away_but_not_for_clients_that_stall() -> None:
    memory, stalled, recent = Memory(100), Sender(), Sender()
    overload = Overload(memory)
    memory.hold(stalled, 50, 0)
    memory.hold(recent, 45, 60)
    assert overload.standing(60) is None  # the stalled one would let go
    storing = overload.begin(50, 60)
    assert overload.standing(60) is Sign.MEMORY
    assert overload.connection_refusal(60) is Sign.MEMORY
    overload.end(storing, STORED, 61)
    assert overload.standing(61) is None


class Overloads(RuleBasedStateMachine):
    """A gate under anything: messages of all sizes begin and end in all ways, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(LIMIT)
        self.overload = Overload(self.memory)
        self.now = 0.0
        self.under_way: list[Storing] = []
        self.has_trouble = False
        self.let_through_at: float | None = None

    @rule(octets=st.integers(0, 60 * MIB))
    def begin(self, octets: int) -> None:
        self.under_way.append(self.overload.begin(octets, self.now))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), reply=st.sampled_from([STORED, replies.FULL, replies.UNAVAILABLE, replies.MAIL_LOOP, None]))
    def end(self, data: st.DataObject, reply: Reply | None) -> None:
        storing = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.overload.end(storing, reply, self.now)
        self.has_trouble |= reply is replies.FULL or self.now >= storing.late_at
        if reply is STORED and self.now >= storing.late_at:
            self.let_through_at = None  # the next may try at once

    @rule(seconds=st.floats(0, 8))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask_for_a_transaction(self) -> None:
        refusal, was_troubled = self.overload.transaction_refusal(self.now), self.overload._seen is not None
        if refusal is None and was_troubled:
            assert self.let_through_at is None or self.now - self.let_through_at >= FIRST_PAUSE_S
            self.let_through_at = self.now
        if not was_troubled:
            self.let_through_at = None

    @rule()
    def ask_for_a_connection(self) -> None:
        self.overload.connection_refusal(self.now)

    @invariant()
    def what_stands_is_what_is_under_way(self) -> None:
        is_late = any(self.now >= storing.late_at for storing in self.under_way)
        assert (self.overload.standing(self.now) is Sign.SLOW) == is_late
        assert self.memory.used_bytes == sum(storing.octets for storing in self.under_way)

    @invariant()
    def without_trouble_nobody_is_turned_away(self) -> None:
        if not self.has_trouble and self.overload.standing(self.now) is None:
            assert self.overload.connection_refusal(self.now) is None
            assert self.overload.transaction_refusal(self.now) is None

    def teardown(self) -> None:
        for storing in self.under_way:
            self.overload.end(storing, replies.UNAVAILABLE, self.now)
        later = self.now + LONGEST_PAUSE_S
        assert self.overload.connection_refusal(later) is None
        assert self.overload.transaction_refusal(later) is None
        stored(self.overload, later, later + 0.01)
        assert self.overload.transaction_refusal(later + 0.01) is None
        assert self.overload.connection_refusal(later + 0.01) is None


Overloads.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
test_any_overload_ends = Overloads.TestCase
