"""The schedule of faults is a function of its seed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chaos.schedule import SERVICES, Kind, plan


@given(seed=st.integers(0, 10**6), seconds=st.floats(10, 600))
def test_a_seed_replays_its_faults_and_they_end_before_the_load(seed: int, seconds: float) -> None:
    faults = plan(seed, seconds)
    assert faults == plan(seed, seconds)
    ends = 0.0
    for fault in faults:
        assert fault.at_s >= ends
        ends = fault.at_s + fault.for_s
        assert ends <= seconds - 2
        assert set(fault.targets) <= {*SERVICES, "nats-server"}


def test_every_kind_of_fault_is_drawn() -> None:
    assert {fault.kind for seed in range(40) for fault in plan(seed, 120)} == set(Kind)
