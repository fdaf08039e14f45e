"""Provisioning against a real broker: again and again, and with a stream gone."""

from __future__ import annotations

import pytest

from fixtures.broker import TEST_LIMITS, Broker
from postern_core.bus.permissions import PROVISIONER
from postern_core.bus.provision import provision
from postern_core.errors import ConfigurationError


async def test_it_can_be_repeated_also_after_a_restart_that_empties_what_is_in_memory(broker: Broker) -> None:
    await broker.provision()
    broker.restart()
    await broker.provision()
    await broker.provision()


async def test_a_stream_that_existed_and_is_gone_is_an_error_and_not_a_reason_to_begin_anew(broker: Broker) -> None:
    await broker.provision()  # an update must not forget what was created
    bus = await broker.connect(PROVISIONER)
    await bus.jetstream.delete_stream("QUARANTINE")
    with pytest.raises(ConfigurationError, match="QUARANTINE existed and are gone"):
        await provision(bus, TEST_LIMITS)
    await provision(bus, TEST_LIMITS, recreate_missing=True)
    await bus.close()
