"""The authenticated gate, running: one replica, or two."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fixtures.auth_gate import running_gate, write_certificate
from fixtures.broker import Broker
from fixtures.gates import GateUnderTest


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return write_certificate(tmp_path)


@pytest.fixture
def client_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


@pytest.fixture
async def gate(broker: Broker, certificate: tuple[Path, Path]) -> AsyncIterator[GateUnderTest]:
    async with running_gate(broker, certificate) as running:
        yield running


@pytest.fixture
async def other(gate: GateUnderTest, certificate: tuple[Path, Path]) -> AsyncIterator[GateUnderTest]:
    """A second replica on the same broker, under the same policy."""
    async with running_gate(gate.broker, certificate) as running:
        yield running
