"""No interleaving loses accepted mail, and a copy has a cause on the list in docs/reliability.md."""

from __future__ import annotations

from model.handover import Fault, State, Told, explore

MAX_FAULTS = 2


def test_accepted_mail_is_always_somewhere_and_ends_settled() -> None:
    finished = 0
    for state, quiet in explore(MAX_FAULTS):
        if state.told is Told.ACCEPTED:
            assert state.somewhere(), state
        if quiet and state.told is Told.ACCEPTED:
            finished += 1
            assert state.settled, state
            assert state.arrived >= 1, state
            assert (state.intake, state.outbound, state.deferred, state.row) == (False, (), False, False), state
    assert finished > 10


def test_without_a_fault_there_is_exactly_one_copy() -> None:
    assert {state.arrived for state, quiet in explore(0) if quiet} == {1}


def test_a_copy_has_one_of_three_causes() -> None:
    copies = [state for state, _ in explore(MAX_FAULTS) if state.arrived > 1]
    causes = {_cause_of_copy(state) for state in copies}
    assert causes == {
        "delivery died between the smart host's 250 and the disposition",
        "a worker overran its ack-wait or lease and went on",
        "the broker forgot an id, and two copies of one job were worked on side by side",
    }


def _cause_of_copy(state: State) -> str:
    if state.unrecorded:
        return "delivery died between the smart host's 250 and the disposition"
    if Fault.OVERRUN in state.faults:
        return "a worker overran its ack-wait or lease and went on"
    if state.copies > 1 and Fault.BROKER_RESTARTED in state.faults:
        return "the broker forgot an id, and two copies of one job were worked on side by side"
    raise AssertionError(f"a copy without a known cause: {state}")


def test_a_message_that_was_refused_may_arrive_as_a_ghost() -> None:
    ghosts = {state.faults[0] for state, quiet in explore(1) if quiet and state.told is Told.REFUSED and state.arrived}
    assert ghosts == {Fault.PUBACK_LOST}
