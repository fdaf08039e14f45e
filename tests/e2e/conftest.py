"""One stack for all scenarios of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.relay import Relay


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A running stack whose default route leads to a recording smart host."""
    with Relay(tmp_path_factory.mktemp("relay") / "var") as running:
        yield running
