"""Minutes of steady load leave memory, descriptors, connections, streams and the retry queue as they were. `make soak` runs for hours."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.soak import Samples, soak

SECONDS = 300


@pytest.mark.timeout(SECONDS + 180)
def test_nothing_grows_under_steady_load(tmp_path: Path) -> None:
    soaked = soak(tmp_path, seconds=SECONDS, rate=60)
    print(soaked.table)
    assert soaked.complaints == ()
    assert (soaked.arrived, soaked.copies) == (soaked.expected, 0)


@pytest.mark.parametrize(("first", "last", "grown"), [(100, 100, False), (100, 108, False), (100, 120, True)])
def test_growth_is_told_from_noise(first: float, last: float, grown: bool) -> None:
    samples = Samples()
    for value in [10, 10, 10, first, first, first, last, last, last]:  # what fills at first does not count
        samples.add("memory (MiB)", "api", value)
    assert bool(list(samples.grown())) is grown
