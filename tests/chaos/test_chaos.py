"""A fixed piece of `make chaos`: mixed load through both gates, faults from a seed, and an audit of every 250."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.embedded import EmbeddedTarget
from chaos.run import chaos

SECONDS = 75


@pytest.mark.timeout(SECONDS + 240)
def test_nothing_that_was_accepted_is_missing_after_a_minute_of_faults(tmp_path: Path) -> None:
    with EmbeddedTarget(tmp_path / "var") as target:
        findings, table = chaos(target, seed=7, seconds=SECONDS, rate=30)
    print(table)
    assert findings.accepted > SECONDS
    assert findings.missing == []
    assert findings.wrong == []
    assert findings.unexplained == []
    assert findings.discrepancies == []
    assert findings.ledger["in_flight"] == 0
