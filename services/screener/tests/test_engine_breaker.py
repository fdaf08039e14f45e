"""The circuit breaker in every order of events."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from postern_screener.engines.breaker import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker, State


class Breaking(RuleBasedStateMachine):
    """Questions go out, come back in any order, succeed or fail; time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 0.0
        self.out = 0  # questions on their way
        self.in_a_row = 0
        self.asked_at = 0.0

    @rule(seconds=st.floats(0, 2 * LONGEST_PAUSE_S))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        before = self.breaker.state
        if self.breaker.allows(self.now):
            self.out += 1
            self.asked_at = self.now
            assert before is not State.HALF_OPEN  # one at a time, to see
        else:
            assert before is not State.CLOSED

    @precondition(lambda self: self.out)
    @rule()
    def succeed(self) -> None:
        self.out -= 1
        self.in_a_row = 0
        self.breaker.succeeded()
        assert self.breaker.state is State.CLOSED
        assert self.breaker.allows(self.now)
        self.breaker.forgotten()

    @precondition(lambda self: self.out)
    @rule()
    def fail(self) -> None:
        self.out -= 1
        self.in_a_row += 1
        was = self.breaker.state
        self.breaker.failed(self.now)
        if was is State.HALF_OPEN:
            assert self.breaker.state is State.OPEN
            assert not self.breaker.allows(self.now + FIRST_PAUSE_S)
        if was is State.CLOSED:
            assert (self.breaker.state is State.OPEN) == (self.in_a_row >= FAILURES)

    @precondition(lambda self: self.out)
    @rule()
    def forget(self) -> None:
        self.out -= 1
        self.breaker.forgotten()
        assert self.breaker.state is not State.HALF_OPEN

    @precondition(lambda self: self.breaker.state is State.OPEN)
    @rule()
    def it_answers_to_its_name(self) -> None:
        self.breaker.sign_of_life()
        assert self.breaker.allows(self.now)
        self.breaker.forgotten()

    @invariant()
    def it_is_never_left_alone_for_ever(self) -> None:
        if self.breaker.state is State.OPEN:
            probe = Breaker()
            probe.__dict__.update(self.breaker.__dict__)
            assert probe.allows(self.now + LONGEST_PAUSE_S)


TestBreaking = Breaking.TestCase
TestBreaking.settings = settings(max_examples=60, stateful_step_count=40)


def test_the_pause_doubles_while_it_fails_and_starts_anew_when_it_does_not() -> None:
    breaker, now = Breaker(), 0.0
    for _ in range(FAILURES):
        assert breaker.allows(now)
        breaker.failed(now)
    pauses = []
    for _ in range(6):
        start = now
        while not breaker.allows(now):
            now += 1
        pauses.append(now - start)
        breaker.failed(now)
    assert pauses == [5, 10, 20, 40, 60, 60]
    while not breaker.allows(now):
        now += 1
    breaker.succeeded()
    for _ in range(FAILURES):
        breaker.failed(now)
    assert not breaker.allows(now + FIRST_PAUSE_S - 1)
    assert breaker.allows(now + FIRST_PAUSE_S)
