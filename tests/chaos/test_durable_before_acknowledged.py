"""Shown and not assumed: the broker syncs its store before it acknowledges with our configuration, and does not with its default.

The broker's system calls are recorded (strace) while one message is published.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client as NatsClient

from fixtures.broker import TEST_LIMITS, Broker
from fixtures.machine import lacking
from fixtures.syscalls import recorded_syscalls
from postern_core.broker.names import inbox_prefix
from postern_core.bus import Bus
from postern_core.bus.provision import provision
from postern_core.bus.topology import INTAKE, intake_subject
from postern_core.envelope import Gate
from postern_core.errors import ConfigurationError
from postern_core.ids import new_queue_id

_STEPS = (
    ("stored", re.compile(r"p?write(?:v|64)?\(\d+<[^>]*/INTAKE/msgs/\d+\.blk>")),
    ("synced", re.compile(r"f(?:data)?sync\(\d+<[^>]*/INTAKE/msgs/\d+\.blk>\) += 0")),
    ("acknowledged", re.compile(r"writev?\(\d+<[^>]*>.*MSG _INBOX")),
)


@pytest.mark.parametrize(
    ("sync_interval", "expected"),
    [("always", ["stored", "synced", "acknowledged"]), ("2m", ["stored", "acknowledged"])],
)
async def test_order_of_store_sync_and_acknowledgement(tmp_path: Path, sync_interval: str, expected: list[str]) -> None:
    if shutil.which("strace") is None:
        lacking("strace (Debian: strace)")
    broker = Broker(tmp_path / "broker", sync_interval=sync_interval)
    broker.start()
    try:
        # plain connections: our own refuse the second broker, which is what the next test shows
        provisioner, gate = await _connect(broker, "provisioner"), await _connect(broker, "ingress-anon")
        await provision(Bus(provisioner), TEST_LIMITS)
        assert broker.process is not None
        with recorded_syscalls(broker.process.pid, tmp_path / "trace"):
            await Bus(gate).publish(INTAKE, intake_subject(Gate.ANON, new_queue_id()), b"message", "one")
        await provisioner.close()
        await gate.close()
    finally:
        broker.stop()
    assert list(_steps(tmp_path / "trace")) == expected


async def _connect(broker: Broker, user: str) -> NatsClient:
    return await nats.connect(broker.url, user=user, password=f"test-{user}", inbox_prefix=inbox_prefix(user))


async def test_every_service_refuses_a_broker_that_acknowledges_first(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", sync_interval="2m")
    broker.start()
    try:
        for user in ("ingress-anon", "ingress-auth", "screener", "delivery", "api", "provisioner"):
            with pytest.raises(ConfigurationError, match="sync_interval: always"):
                await broker.connect(user)
    finally:
        broker.stop()


def _steps(trace: Path) -> Iterator[str]:
    """The steps in the order in which the broker took them, up to the acknowledgement."""
    for line in trace.read_text(errors="replace").splitlines():
        for name, pattern in _STEPS:
            if pattern.search(line):
                yield name
                if name == "acknowledged":
                    return
