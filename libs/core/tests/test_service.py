"""How a service ends: its exit code tells the supervisor why, and nobody sees a traceback for a wrong setting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.broker import Broker, free_port

PROGRAM = """
import asyncio, sys
from postern_core import process, service
from postern_core.errors import ConfigurationError
from postern_core.settings import BusSettings, load

service._HARD_EXIT_S = 0.5
process._LOADED_S = 0.1

async def drains(bus, stop):
    await stop.wait()
    print("drained", flush=True)

async def fails(bus, stop):
    raise RuntimeError("a fault of ours")

async def is_misconfigured(bus, stop):
    raise ConfigurationError("POSTERN_SOMETHING is wrong")

async def loses_the_bus(bus, stop):
    await bus.client.close()
    await stop.wait()

async def never_ends(bus, stop):
    await asyncio.Event().wait()

async def fails_while_draining(bus, stop):
    await stop.wait()
    raise RuntimeError("a fault of ours")

async def tells_how_it_is_run(bus, stop):
    import gc, os
    service.log.info("told", policy=os.sched_getscheduler(0))
    while not gc.get_freeze_count():
        await asyncio.sleep(0.01)
    service.log.info("spared")
    await stop.wait()

sys.exit(service.run_service("api", load(BusSettings), globals()[sys.argv[1]]))
"""


class Service:
    """The program above in a process of its own."""

    def __init__(self, serve: str, environment: dict[str, str]) -> None:
        # a file, so that standard output alone is read to its end, by one reader: another would miss what that one has in its buffer
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (as long as the process)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, serve],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def saw(self, event: str) -> None:
        """Returns when the service has logged `event`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if event in line:
                return
        raise AssertionError(f"{event} was never logged: {self.ended()[2]}")

    def ended(self) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        assert self.process.stdout is not None
        code = self.process.wait(20)
        self._errors.seek(0)
        return code, self.process.stdout.read(), self._errors.read()


@pytest.fixture
def environment(session_broker: Broker) -> dict[str, str]:
    return {
        "POSTERN_NATS_URL": session_broker.url,
        "POSTERN_NATS_MONITOR_URL": session_broker.monitor_url,
        "POSTERN_NATS_USER": "api",
        "POSTERN_NATS_PASSWORD_FILE": str(session_broker.directory / "api.password"),
    }


@pytest.fixture
def started() -> Iterator[list[Service]]:
    services: list[Service] = []
    yield services
    for service in services:
        if service.process.poll() is None:
            service.process.kill()
            service.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_it_and_that_is_zero(environment: dict[str, str], started: list[Service], number: int) -> None:
    started.append(service := Service("drains", environment))
    service.saw("service.started")
    service.process.send_signal(number)
    code, out, err = service.ended()
    assert (code, err) == (0, "")
    assert "drained" in out
    assert "service.stopped" in out


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' scheduler")
def test_it_yields_the_core_and_spares_what_it_has_loaded(environment: dict[str, str], started: list[Service]) -> None:
    started.append(service := Service("tells_how_it_is_run", environment))
    service.saw(f'"policy":{os.SCHED_BATCH}')
    service.saw("spared")


@pytest.mark.parametrize("serve", ["fails", "never_ends", "fails_while_draining"])
def test_a_task_that_fails_or_does_not_end_is_70(environment: dict[str, str], started: list[Service], serve: str) -> None:
    started.append(service := Service(serve, environment))
    service.saw("service.started")
    if serve != "fails":
        service.process.send_signal(signal.SIGTERM)
    code, out, err = service.ended()
    assert code == 70
    assert "Traceback" not in err
    assert ("service.drain_overran" if serve == "never_ends" else "service.failed") in out


def test_a_bus_that_is_lost_for_good_is_75(environment: dict[str, str], started: list[Service]) -> None:
    started.append(service := Service("loses_the_bus", environment))
    code, out, _ = service.ended()
    assert code == 75
    assert "service.bus_lost" in out


@pytest.mark.parametrize(
    ("serve", "change", "said"),
    [
        ("is_misconfigured", {}, "postern: api: POSTERN_SOMETHING is wrong\n"),
        ("drains", {"POSTERN_NATS_URL": "::::"}, "postern: api: POSTERN_NATS_URL cannot be used: "),
        ("drains", {"POSTERN_DRAIN_S": "soon"}, "postern: POSTERN_DRAIN_S: "),
        ("drains", {"POSTERN_NATS_CA_FILE": __file__}, "postern: api: POSTERN_NATS_CA_FILE holds no CA certificates: "),
    ],
)
def test_a_wrong_setting_is_78_and_one_line(
    environment: dict[str, str], started: list[Service], serve: str, change: dict[str, str], said: str
) -> None:
    started.append(service := Service(serve, environment | change))
    code, _, err = service.ended()
    assert code == 78
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_a_broker_that_acknowledges_first_is_78(environment: dict[str, str], started: list[Service], tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", sync_interval="2m")
    broker.start()
    try:
        change = {"POSTERN_NATS_URL": broker.url, "POSTERN_NATS_MONITOR_URL": broker.monitor_url}
        started.append(service := Service("drains", environment | change))
        code, _, err = service.ended()
    finally:
        broker.stop()
    assert code == 78
    assert "acknowledges before it syncs" in err
    assert err.count("\n") == 1


def test_a_signal_while_it_waits_for_the_broker_ends_it(environment: dict[str, str], started: list[Service]) -> None:
    started.append(service := Service("drains", environment | {"POSTERN_NATS_URL": f"nats://127.0.0.1:{free_port()}"}))
    service.saw("bus.error_reported")  # the first try has failed; it goes on trying
    service.process.send_signal(signal.SIGTERM)
    code, _, err = service.ended()
    assert (code, err) == (0, "")
