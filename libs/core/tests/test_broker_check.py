"""A broker that would acknowledge before it syncs, or cannot be asked, is refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.broker import Broker
from fixtures.ports import free_port
from postern_core.broker.names import PROVISIONER
from postern_core.bus import broker_check
from postern_core.bus.broker_check import confirm_broker, store_bytes
from postern_core.bus.connection import connect
from postern_core.errors import ConfigurationError
from postern_core.settings import BusSettings, Unconfirmed


@pytest.fixture
def unsynced(tmp_path: Path) -> Iterator[Broker]:
    """A real server with JetStream's own default: acknowledge now, sync every two minutes."""
    broker = Broker(tmp_path / "broker", sync_interval="2m")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_check, "_TRIES", 2)


def answering(version: str) -> SimpleNamespace:
    major, minor, patch = (int(number) for number in version.split("."))
    return SimpleNamespace(connected_server_version=SimpleNamespace(major=major, minor=minor, patch=patch))


@pytest.mark.parametrize("version", ["2.9.10", "2.10.29", "2.12.4", "1.99.99"])
async def test_a_broker_that_is_too_old_is_refused(session_broker: Broker, version: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"nats-server {version} is too old: 2\.12\.5"):
        await confirm_broker(session_broker.settings("api"), answering(version))  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["2.12.5", "2.13.0", "3.0.0"])
async def test_a_broker_that_is_new_enough_and_syncs_is_taken(session_broker: Broker, version: str) -> None:
    await confirm_broker(session_broker.settings("api"), answering(version))  # type: ignore[arg-type]


async def test_a_broker_that_acknowledges_before_it_syncs_is_refused_whatever_is_allowed(unsynced: Broker) -> None:
    for unconfirmed in Unconfirmed:
        settings = unsynced.settings(PROVISIONER).model_copy(update={"broker_sync_unconfirmed": unconfirmed})
        with pytest.raises(ConfigurationError, match="acknowledges before it syncs"):
            await connect(settings, PROVISIONER)


async def test_a_broker_whose_configuration_does_not_speak_of_syncing_is_refused(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    broker.stop()
    configuration = broker.directory / "nats.conf"
    lines = configuration.read_text().splitlines(keepends=True)
    configuration.write_text("".join(line for line in lines if "sync_interval" not in line))
    try:
        broker.restart()
        with pytest.raises(ConfigurationError, match="set `sync_interval: always`"):
            await broker.connect(PROVISIONER)
    finally:
        broker.stop()


async def test_a_broker_that_keeps_mail_where_temporary_files_go_is_refused(
    session_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(session_broker.directory / "store" / "jetstream")
    monkeypatch.setattr(broker_check, "_TEMPORARY_STORES", (store,))
    with pytest.raises(ConfigurationError, match=f"keeps mail in {store}, .* set `store_dir`"):
        await session_broker.connect("api")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("max_payload: 1MB", "takes messages of up to 1048576 bytes, .*: set `max_payload: 8MB`"),
        ("max_pending: 32MB", "33554432 bytes wait"),
    ],
)
async def test_a_broker_that_has_no_room_for_our_largest_messages_is_refused(tmp_path: Path, line: str, named: str) -> None:
    """Each such message would be refused again and again, or would end one connection after another."""
    broker = Broker(tmp_path / "broker")
    broker.start()
    broker.stop()
    configuration = broker.directory / "nats.conf"
    lines = [kept for kept in configuration.read_text().splitlines() if not kept.startswith(line.partition(":")[0])]
    configuration.write_text("\n".join((line, *lines)))
    try:
        broker.restart()
        with pytest.raises(ConfigurationError, match=named):
            await broker.connect(PROVISIONER)
    finally:
        broker.stop()


async def test_a_broker_with_room_for_the_largest_inline_limit_is_the_one_that_we_configure(session_broker: Broker) -> None:
    largest = max(entry.le for entry in BusSettings.model_fields["inline_limit_bytes"].metadata if hasattr(entry, "le"))
    bus = await connect(session_broker.settings("api").model_copy(update={"inline_limit_bytes": largest}), "api")
    await bus.close()


async def test_a_broker_that_comes_back_with_another_configuration_is_left(broker: Broker) -> None:
    """Was: only looked at once, at the start: 250 was then answered for mail that was not on disk."""
    gate = await broker.connect("ingress-anon")
    configuration = broker.directory / "nats.conf"
    configuration.write_text(configuration.read_text().replace("sync_interval: always", "sync_interval: 2m"))
    await asyncio.to_thread(broker.restart)
    async with asyncio.timeout(20):
        await gate.closed.wait()  # and the service ends with it
    await gate.close()


async def test_a_broker_that_comes_back_and_cannot_be_asked_at_once_is_kept(broker: Broker, impatient: None) -> None:
    gate = await broker.connect("ingress-anon")
    configuration = broker.directory / "nats.conf"
    configuration.write_text(configuration.read_text().replace(f":{broker.monitor_port}", f":{free_port()}"))
    await asyncio.to_thread(broker.restart)
    async with asyncio.timeout(20):
        while gate.checking is None:
            await asyncio.sleep(0.01)
        await gate.checking
    assert gate.connected
    assert (await gate.publish("INTAKE", "intake.anon.x", b"mail", "x")).seq == 1
    await gate.close()


async def test_one_of_several_that_does_not_sync_is_enough(session_broker: Broker, unsynced: Broker) -> None:
    urls = f"{session_broker.monitor_url}, {unsynced.monitor_url}/"
    settings = session_broker.settings("api").model_copy(update={"nats_monitor_url": urls})
    with pytest.raises(ConfigurationError, match=f"{unsynced.monitor_url} acknowledges before it syncs"):
        await connect(settings, "api")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}",
        "http://127.0.0.1:{client_port}",
        "nats://127.0.0.1:4222",
        "",
        "http://[::1",
        "file:///etc/passwd",
    ],
)
async def test_a_broker_that_cannot_be_asked_is_refused(session_broker: Broker, impatient: None, url: str) -> None:
    settings = session_broker.settings("api").model_copy(
        update={"nats_monitor_url": url.format(port=free_port(), client_port=session_broker.port)}
    )
    with pytest.raises(ConfigurationError, match="POSTERN_NATS_MONITOR_URL"):
        await connect(settings, "api")
    assert await store_bytes(settings) is None


async def test_what_answers_there_must_be_a_broker(session_broker: Broker, impatient: None, tmp_path: Path) -> None:
    """Something else on that port: a list, a text, no JSON at all."""
    doubtful = '{"server_id": "x", "jetstream": {"config": {"sync_always": "true"}}}'
    for content in ("[]", '"varz"', "<html>", "{}", '{"server_id": "x", "jetstream": 7}', doubtful):
        (tmp_path / "varz").write_text(content)
        port = free_port()
        server = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PYTHONUNBUFFERED": "1"},
        )
        try:
            assert server.stdout is not None
            server.stdout.readline()  # it listens
            settings = session_broker.settings("api").model_copy(update={"nats_monitor_url": f"http://127.0.0.1:{port}"})
            with pytest.raises(ConfigurationError):
                await connect(settings, "api")
        finally:
            server.terminate()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()


async def test_the_risk_of_not_knowing_can_be_taken(session_broker: Broker, impatient: None) -> None:
    settings = session_broker.settings("api").model_copy(
        update={"nats_monitor_url": f"http://127.0.0.1:{free_port()}", "broker_sync_unconfirmed": Unconfirmed.ALLOW}
    )
    bus = await connect(settings, "api")
    assert bus.connected
    await bus.close()


async def test_the_size_of_the_store_is_what_the_broker_says(session_broker: Broker) -> None:
    assert await store_bytes(session_broker.settings("api")) == 100 * 1024**3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"nats_url": "::::"}, "POSTERN_NATS_URL"),
        ({"nats_ca_file": Path(__file__)}, "POSTERN_NATS_CA_FILE"),
        ({"nats_password_file": Path("/")}, "POSTERN_NATS_PASSWORD_FILE"),
    ],
)
async def test_a_setting_that_cannot_be_used_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        await connect(BusSettings().model_copy(update=change), "api")
