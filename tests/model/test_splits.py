"""A message that is split loses nobody's mail, gives nobody two ends, and a copy has a cause on the list in docs/reliability.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.screener_run import BODY, WHOLE, next_of
from model.splitting import Fault, Request, Screening, State, explore
from postern_core.disposition import DispositionKind

TAGGED = BODY.replace(b"hello", b"[tag] hello", 1)
BY_THE_BROKER = frozenset({Fault.SCREENER_DIED, Fault.ACK_LOST, Fault.IDS_FORGOTTEN})
BY_RULES = frozenset({Fault.SCREENER_DIED, Fault.ACK_LOST, Fault.RULES_CHANGED})

OVERRAN = "a worker overran its ack-wait and went on"
FORGOT_IDS = "the broker forgot an id, and two copies of one job were worked on side by side"
TWO_VERDICTS = "the rules changed between two runs of the screener: it passed, and it was held and then released"
OTHER_SHARES = "the rules changed between two runs of the screener, and other recipients belong together: a job for each share"

# a letter for each recipient, as in `ruleset_of`: of three the last one takes another route
SPLITS = pytest.mark.parametrize("policy", ["ph", "pd", "pc"], ids=["one is held", "one is deleted", "for one it is changed"])
STORED = pytest.mark.parametrize("stored", [False, True], ids=["inline", "stored"])
REVISIONS = pytest.mark.parametrize(
    ("policy", "revised", "stored"),
    [
        ("ph", "pp", False),
        ("ph", "pp", True),
        ("pp", "ph", True),
        ("ph", "hp", True),
        ("hh", "pp", True),  # held for some as yet, it is held for the others as well
        ("pd", "dp", True),
        ("dp", "pp", False),
        ("pc", "cp", True),
        ("cp", "hh", False),
        ("phh", "pph", False),  # those who went on are in no other share
        ("dpp", "phh", False),  # nor is a share held of which one has his mail
    ],
)


def states(policy: str, revised: str, most: int, wanted: frozenset[Fault], *, stored: bool) -> Iterator[tuple[State, bool]]:
    def following(task: Screening) -> Request | None:
        return next_of(task.policy, task.answers, repeated=task.repeated, stored=stored)

    return explore(policy, revised, most, following, stored=BODY if stored else b"", wanted=wanted)


def has_job(state: State, n: int) -> bool:
    return any(n in job.recipients and state.has_body(job.body) for job in state.jobs)


def check(state: State, quiet: bool, policy: str) -> None:
    """What holds whatever happened."""
    everybody = range(len(policy))
    assert all(state.is_somewhere(n) for n in everybody), state
    assert not state.unread, state
    assert not state.again, state
    # a job that waits frozen, with an alarm: the mail is there, or goes on under the next generation
    assert all(state.arrived[n] or has_job(state, n) for n in state.bodiless), state
    if quiet:
        assert not state.intake, state
        assert not state.jobs, state
        assert all(n in state.bodiless or state.ended(WHOLE, n) for n in everybody), state


def cause_of_copy(state: State, n: int) -> str:
    """ "" when there is none that we know."""
    if Fault.OVERRUN in state.faults:
        return OVERRAN
    if Fault.RULES_CHANGED in state.faults:
        if any(end.n == n and end.kind is DispositionKind.RELEASED for end in state.written):
            return TWO_VERDICTS
        return OTHER_SHARES if sum(n == number for number, _ in state.ways) > 1 else ""
    return FORGOT_IDS if Fault.IDS_FORGOTTEN in state.faults and state.side_by_side else ""


def causes_of(state: State) -> set[str]:
    return {cause_of_copy(state, n) for n, got in enumerate(state.arrived) if len(got) > 1}


@STORED
@SPLITS
def test_each_recipient_comes_to_the_one_end_that_the_rules_want(policy: str, stored: bool) -> None:
    wanted = {
        "p": {DispositionKind.DELIVERED},
        "c": {DispositionKind.DELIVERED},
        "h": {DispositionKind.HELD, DispositionKind.DELIVERED},  # released by an administrator
        "d": {DispositionKind.DELETED},
    }
    content = {"p": BODY, "h": BODY, "c": TAGGED}
    ends, causes = 0, set()
    for state, quiet in states(policy, "", 2, BY_THE_BROKER, stored=stored):
        check(state, quiet, policy)
        causes |= causes_of(state)
        for n, letter in enumerate(policy):
            assert set(state.arrived[n]) <= {content.get(letter)}, state
            assert state.finals(n) <= wanted[letter], state
            if quiet and not state.held:
                assert state.finals(n) == wanted[letter], state
        if quiet and not state.faults:
            ends += 1
            assert [len(got) for got in state.arrived] == [letter != "d" for letter in policy]
            assert (state.held, state.bodies) == (frozenset(), frozenset()), state
    assert ends == 1
    assert causes == {FORGOT_IDS}


@SPLITS
def test_two_screeners_that_split_it_at_one_moment_lose_nothing(policy: str) -> None:
    copies = set()
    for state, quiet in states(policy, "", 2, frozenset({Fault.OVERRUN, Fault.SCREENER_DIED}), stored=False):
        check(state, quiet, policy)
        copies |= causes_of(state)
    assert copies <= {OVERRAN}


@REVISIONS
def test_rules_that_change_meanwhile_lose_nothing_and_copies_have_a_cause(policy: str, revised: str, stored: bool) -> None:
    causes = set()
    for state, quiet in states(policy, revised, 3, BY_RULES, stored=stored):
        check(state, quiet, policy)
        causes |= causes_of(state)
    assert causes <= {TWO_VERDICTS, OTHER_SHARES}
