"""No interleaving loses accepted mail, and a copy has a cause on the list in docs/reliability.md."""

from __future__ import annotations

import pytest

from model.handover import explore
from model.state import Fault, State, Told

MAX_FAULTS = 2
VERDICTS = pytest.mark.parametrize("held", [False, True], ids=["passed", "held and released"])

DIED = "delivery died between the smart host's 250 and the disposition"
OVERRAN = "a worker overran its ack-wait or lease and went on"
FORGOT = "the broker forgot an id, and two copies of one job were worked on side by side"


@VERDICTS
def test_accepted_mail_is_always_somewhere_and_ends_settled(held: bool) -> None:
    finished = 0
    for state, quiet in explore(MAX_FAULTS, held=held):
        if state.told is not Told.ACCEPTED:
            continue
        assert state.somewhere(), state
        if quiet and not state.quarantine:  # what is in quarantine waits for its administrator
            finished += 1
            assert state.settled, state
            assert state.arrived >= 1, state
            assert (state.intake, state.outbound, state.deferred, state.row) == (False, (), False, False), state
    assert finished > 10


@VERDICTS
def test_without_a_fault_there_is_exactly_one_copy(held: bool) -> None:
    assert {state.arrived for state, quiet in explore(0, held=held) if quiet and not state.quarantine} == {1}


@VERDICTS
def test_a_copy_has_one_of_three_causes(held: bool) -> None:
    copies = [state for state, _ in explore(MAX_FAULTS, held=held) if state.arrived > 1]
    assert {_cause_of_copy(state) for state in copies} == {DIED, OVERRAN, FORGOT}


def _cause_of_copy(state: State) -> str:
    if state.unrecorded:
        return DIED
    if Fault.OVERRUN in state.faults:
        return OVERRAN
    if state.copies > 1 and Fault.IDS_FORGOTTEN in state.faults:
        return FORGOT
    raise AssertionError(f"a copy without a known cause: {state}")


def test_what_was_released_once_is_not_held_again_by_a_screener_that_died_before_its_acknowledgement() -> None:
    for state, _ in explore(MAX_FAULTS, held=True):
        if state.arrived and state.quarantine and Fault.OVERRUN not in state.faults:
            assert state.tasks or state.releases, state
            assert state.newest is None or state.newest[1] == 1, state


def test_a_message_that_was_refused_may_arrive_as_a_ghost() -> None:
    ghosts = {state.faults[0] for state, quiet in explore(1) if quiet and state.told is Told.REFUSED and state.arrived}
    assert ghosts == {Fault.PUBACK_LOST}
