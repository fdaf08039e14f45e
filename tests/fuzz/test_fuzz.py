"""Fuzzing for a short while, as CI does: every seed, what hypothesis makes of them, and atheris where there is a wheel of it."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.machine import lacking
from fuzz.run import run
from fuzz.targets import TARGETS, seeds, seeds_of

SECONDS = int(os.environ.get("POSTERN_FUZZ_SECONDS", "25"))

Target = Callable[[bytes], None]
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)


@each_target
def test_every_seed_is_read(target: Target) -> None:
    for seed in [*seeds_of(target), *seeds()]:
        target(seed)


@st.composite
def mutated(draw: st.DrawFn, target: Target) -> bytes:
    """Two seeds cut and joined, with a piece of anything in between."""
    known = st.sampled_from([*seeds_of(target), *seeds()])
    first, second = draw(known), draw(known)
    here, there = draw(st.integers(0, len(first))), draw(st.integers(0, len(second)))
    return first[:here] + draw(st.binary(max_size=20)) + second[there:]


@each_target
@settings(max_examples=60)
@given(data=st.data())
def test_what_is_made_of_seeds_is_read(target: Target, data: st.DataObject) -> None:
    target(data.draw(mutated(target)))


def test_nothing_is_found_by_coverage() -> None:
    if importlib.util.find_spec("atheris") is None:
        # its wheels are for Linux on x86-64 and Python 3.11 to 3.13 (constraints-dev.txt); elsewhere the two tests above are what there is
        lacking(
            f"atheris, which has no wheel for {platform.machine()} and Python {sys.version_info.major}.{sys.version_info.minor}"
        )
    done = run(SECONDS)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "stat::number_of_executed_units" in done.stderr
