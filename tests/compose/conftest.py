"""One Compose stack for all tests here, built from this checkout. Without an engine they are skipped, except in CI, where they fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.containers import PROJECT, ContainerStack, base_image, engine_trouble
from fixtures.machine import lacking


@pytest.fixture(scope="session")
def built_stack() -> Iterator[ContainerStack]:
    """Images are built, nothing runs; whatever runs at the end is removed, with its volumes."""
    if trouble := engine_trouble():
        lacking(f"a container engine with Compose: {trouble}")
    stack = ContainerStack(PROJECT, base_image())
    try:
        stack.build()
        yield stack
    finally:
        stack.remove()


@pytest.fixture(scope="session")
def stack(built_stack: ContainerStack) -> ContainerStack:
    """Everything is up and healthy, with the profile `demo`."""
    built_stack.up()
    return built_stack
