"""A fixed piece of `make chaos STACK=compose`: mixed load through both gates, faults from a seed, and an audit of every 250."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.containers import ContainerTarget
from chaos.run import chaos
from chaos.schedule import COMPOSE, Kind, plan
from fixtures.containers import ContainerStack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

SEED, SECONDS = 9095, 75


def test_the_seed_has_something_of_everything() -> None:
    faults = plan(SEED, SECONDS, COMPOSE)
    assert {fault.kind for fault in faults} >= {
        Kind.ROLLING_RESTART,
        Kind.KILL,
        Kind.KILL_SEVERAL,
        Kind.PAUSE,
        Kind.BROKER_KILL,
        Kind.DATABASE_KILL,
        Kind.NETWORK_CUT,
    }
    assert {fault.targets[1] for fault in faults if fault.kind is Kind.NETWORK_CUT} == {"bus", "database"}


@pytest.fixture
def scaled_stack(stack: ContainerStack) -> Iterator[ContainerStack]:
    """Chaos takes two of screener and delivery; whoever comes next finds one of each again."""
    yield stack
    stack.up()


def test_nothing_that_was_accepted_is_missing_after_a_minute_of_faults(scaled_stack: ContainerStack, tmp_path: Path) -> None:
    with ContainerTarget(scaled_stack, tmp_path / "var") as target:
        findings, table = chaos(target, seed=SEED, seconds=SECONDS, rate=20)
    print(table)
    assert findings.accepted > 4 * SECONDS
    assert findings.missing == []
    assert findings.wrong == []
    assert findings.unexplained == []
    assert findings.discrepancies == []
    assert findings.ledger["in_flight"] == 0
