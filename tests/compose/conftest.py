"""One Compose stack for all tests here, built from this checkout. Without an engine they are skipped, except in CI, where they fail."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator

import pytest

from fixtures.containers import ROOT, ContainerStack, engine_trouble


def _base_image() -> str:
    """BASE_IMAGE, or in CI the one that .ci/base-image makes without a registry; "" leaves the Dockerfile's default."""
    if named := os.environ.get("BASE_IMAGE", ""):
        return named
    if os.environ.get("CI") != "true":
        return ""
    made = subprocess.run([str(ROOT / ".ci" / "base-image")], stdout=subprocess.PIPE, text=True, check=True, timeout=800)
    return made.stdout.strip()


@pytest.fixture(scope="session")
def built_stack() -> Iterator[ContainerStack]:
    """Images are built, nothing runs; whatever runs at the end is removed, with its volumes."""
    if os.environ.get("CI") == "true":
        subprocess.run([str(ROOT / ".ci" / "engine")], check=True, timeout=800)
    elif trouble := engine_trouble():
        pytest.skip(f"needs a container engine with Compose: {trouble}")
    project = os.environ.get("POSTERN_TEST_PROJECT") or f"postern-test-{secrets.token_hex(4)}"
    stack = ContainerStack(project, _base_image())
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
