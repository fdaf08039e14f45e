"""The anonymous gate, running."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fixtures.broker import Broker
from fixtures.gates import GateUnderTest, gate_under_test
from postern_core.envelope import Gate
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings


@pytest.fixture
async def bare_gate(broker: Broker) -> AsyncIterator[GateUnderTest]:
    """Without a policy yet."""
    settings = Settings(**broker.settings("ingress-anon").model_dump() | {"listen": "127.0.0.1:0", "drain_s": 6})
    async with gate_under_test(broker, Gate.ANON, lambda _: gate_of(settings)) as gate:
        yield gate


@pytest.fixture
async def gate(bare_gate: GateUnderTest) -> GateUnderTest:
    await bare_gate.policy()
    return bare_gate
