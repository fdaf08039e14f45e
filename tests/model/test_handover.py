"""No interleaving loses accepted mail, and a copy has a cause on the list in docs/reliability.md."""

from __future__ import annotations

import functools
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from model.handover import explore
from model.state import Fault, State, Told

pytestmark = pytest.mark.timeout(600)  # half a million states and more; on a busy machine a minute or two

MAX_FAULTS = 2
WAYS = pytest.mark.parametrize(
    ("held", "batched"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["passed", "held and released", "passed, of a batch", "held and released, of a batch"],
)

DIED = "delivery died between the smart host's 250 and the disposition"
OVERRAN = "a worker overran its ack-wait or lease and went on"
FORGOT_IDS = "the broker forgot an id, and two copies of one job were worked on side by side"
FORGOT_HANDS = "the broker forgot who has a job, and two worked on it side by side"
OTHER_COMPANY = "a batch came again and others passed, and two copies of one job were worked on side by side"
WEEK = "it stayed for longer than dispositions are kept"
TWO_VERDICTS = "the rules changed between two runs of the screener: it passed, and it was held and then released"
TWO_ROUTES = "the routes changed between two runs of the screener: a job on each"
ALONE = {DIED, OVERRAN, FORGOT_IDS, FORGOT_HANDS, WEEK, TWO_VERDICTS, TWO_ROUTES}


@dataclass
class Findings:
    """What is to be said of every state that was reached. Each list has the first few that should not be."""

    states: int = 0
    finished: int = 0
    lost: list[State] = field(default_factory=list)
    unfinished: list[State] = field(default_factory=list)
    unexplained: list[State] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Half of the time it would look through states, none of which is garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@functools.cache
def findings(held: bool, batched: bool) -> Findings:
    found = Findings()
    with without_garbage_collection():
        for state, quiet in explore(MAX_FAULTS, held=held, batched=batched):
            found.states += 1
            if state.told is Told.ACCEPTED:
                _judge(state, quiet, found)
            if state.arrived > 1:
                cause = cause_of_copy(state)
                found.causes[cause] += 1
                if not cause:
                    found.unexplained.append(state)
    return found


def _judge(state: State, quiet: bool, found: Findings) -> None:
    if not state.somewhere():
        found.lost.append(state)
    if quiet and not state.quarantine:  # what is in quarantine waits for its administrator
        found.finished += 1
        if not (state.settled and state.arrived) or state.intake or state.outbound or state.deferred or state.rows:
            found.unfinished.append(state)


def cause_of_copy(state: State) -> str:
    """ "" when there is none that we know."""
    faults = set(state.faults)
    if state.unrecorded:
        return DIED
    if Fault.OVERRUN in faults or faults == {Fault.BROKER_KILLED, Fault.IDS_FORGOTTEN}:
        return OVERRAN  # a worker that the broker forgot goes on as well
    if Fault.WEEK_PASSED in faults:
        return WEEK
    if Fault.RULES_CHANGED in faults and state.releases:
        return TWO_VERDICTS
    if Fault.ROUTES_CHANGED in faults:
        return TWO_ROUTES
    if not state.side_by_side:
        return ""
    if Fault.BROKER_KILLED in faults:
        return FORGOT_HANDS
    if Fault.IDS_FORGOTTEN in faults:
        return FORGOT_IDS
    return OTHER_COMPANY if state.batched else ""


@WAYS
def test_accepted_mail_is_always_somewhere_and_ends_settled(held: bool, batched: bool) -> None:
    found = findings(held, batched)
    assert found.lost == []
    assert found.unfinished == []
    assert found.finished > 10


@WAYS
def test_without_a_fault_there_is_exactly_one_copy(held: bool, batched: bool) -> None:
    quiet = [state for state, quiet in explore(0, held=held, batched=batched) if quiet and not state.quarantine]
    assert {state.arrived for state in quiet} == {1}


@WAYS
def test_a_copy_has_a_cause_that_is_on_the_list(held: bool, batched: bool) -> None:
    found = findings(held, batched)
    assert found.unexplained == []
    assert set(found.causes) == (ALONE | {OTHER_COMPANY} if batched else ALONE)


@pytest.mark.parametrize("batched", [False, True], ids=["alone", "of a batch"])
def test_a_broker_that_forgets_who_has_what_makes_copies_only_at_one_moment(batched: bool) -> None:
    """Two workers must have it at once, since what may have been given out before comes as repeated; without that, one after the other was enough."""
    for marks, one_after_the_other in ((True, False), (False, True)):
        copies = [state for state, _ in explore(1, batched=batched, marks=marks) if state.arrived > 1]
        killed = [state for state in copies if state.faults == (Fault.BROKER_KILLED,)]
        assert killed
        assert any(not state.side_by_side for state in killed) is one_after_the_other


def test_what_was_released_once_is_not_held_again_by_a_screener_that_died_before_its_acknowledgement() -> None:
    for state, _ in explore(1, held=True):
        if state.arrived and state.quarantine and Fault.OVERRUN not in state.faults:
            assert state.tasks or state.releases, state
            assert state.newest is None or state.newest[1] == 1, state


def test_a_message_that_was_refused_may_arrive_as_a_ghost() -> None:
    ghosts = {state.faults[0] for state, quiet in explore(1) if quiet and state.told is Told.REFUSED and state.arrived}
    assert ghosts == {Fault.PUBACK_LOST}
