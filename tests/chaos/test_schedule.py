"""The schedule of faults is a function of its seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.schedule import COMPOSE, EMBEDDED, Kind, Menu, plan

MENUS = {"embedded": EMBEDDED, "compose": COMPOSE}


@given(menu=st.sampled_from(list(MENUS.values())), seed=st.integers(0, 10**6), seconds=st.floats(10, 600))
def test_a_seed_replays_its_faults_and_they_end_before_the_load(menu: Menu, seed: int, seconds: float) -> None:
    faults = plan(seed, seconds, menu)
    assert faults == plan(seed, seconds, menu)
    known = {*menu.together, menu.broker, menu.database, *(word for cut in menu.cuts for word in cut)}
    ends = 0.0
    for fault in faults:
        assert fault.at_s >= ends
        ends = fault.at_s + fault.for_s
        assert ends <= seconds - 2
        assert set(fault.targets) <= known


@pytest.mark.parametrize("name", MENUS)
def test_every_kind_of_fault_is_drawn(name: str) -> None:
    menu = MENUS[name]
    assert {fault.kind for seed in range(40) for fault in plan(seed, 120, menu)} == set(menu.character)


def test_there_is_no_kind_that_befalls_nobody() -> None:
    assert {kind for menu in MENUS.values() for kind in menu.character} == set(Kind)


def test_what_a_seed_meant_to_the_embedded_stack_it_means_still() -> None:
    """The recorded runs in docs/reliability.md name seeds."""
    faults = plan(2026, 180)
    told = [(round(fault.at_s, 3), fault.kind) for fault in (faults[0], faults[-1])]
    assert told == [(2.507, Kind.BROKER_PAUSE), (162.218, Kind.SMART_HOST_DOWN)]
    assert len(faults) == 29
