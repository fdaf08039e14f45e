"""Events and status: told after the fact, never in the way of mail; and the files that the broker is set up with."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fixtures.broker import Broker
from postern_core.broker.files import main, write_private
from postern_core.broker.names import PROVISIONER, SERVICES
from postern_core.bus import Bus, EventSink, NoticeSink, StatusReporter, event_sink, notice_sink
from postern_core.bus.topology import EVENTS
from postern_core.control import ServiceStatus
from postern_core.events import EventBatch, EventKind, TraceEvent
from postern_core.healthcheck import mark_ready
from postern_core.ids import new_queue_id
from postern_core.notices import NoticeBatch, NoticeKind
from postern_core.verdict import Decision, Finding, Verdict

PATIENCE_S = 20


async def events(reader: Bus) -> list[TraceEvent]:
    found: list[TraceEvent] = []
    sequence = 1
    while (stored := await _get(reader, sequence)) is not None:
        found += msgspec.json.decode(stored, type=EventBatch).events
        sequence += 1
    return found


async def _get(reader: Bus, sequence: int) -> bytes | None:
    answer: dict[str, Any] = await reader.api(f"STREAM.MSG.GET.{EVENTS}", {"seq": sequence}, tolerate_error=True)
    message = answer.get("message")
    return msgspec.convert(message["data"], bytes, strict=False) if message else None


async def test_verdicts_of_which_each_has_much_to_say_travel_in_smaller_batches(broker: Broker) -> None:
    gate, reader = await broker.connect("screener"), await broker.connect(PROVISIONER)
    sink, stop = EventSink(gate, "screener"), asyncio.Event()
    finding = Finding(rule_id="r" * 64, rule_name="ü" * 128, part="1", excerpt="é" * 72, chain=("a" * 200, "b" * 200))
    verdict = Verdict(revision=1, decision=Decision.PASS, findings=(finding,) * 20)
    ids = [new_queue_id() for _ in range(1200)]  # over the broker's largest payload in one batch of 500
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.run(stop))
        for queue_id in ids:
            sink.tell(queue_id, EventKind.SCREENED, verdict=verdict)
        stop.set()
    found = await events(reader)
    assert [event.id for event in found] == ids
    assert found[-1].verdict == verdict
    await gate.close()
    await reader.close()


async def test_events_arrive_in_order_and_the_last_ones_when_it_ends(broker: Broker) -> None:
    gate, reader = await broker.connect("ingress-anon"), await broker.connect(PROVISIONER)
    sink, stop = EventSink(gate, "ingress-anon"), asyncio.Event()
    ids = [new_queue_id() for _ in range(1200)]
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.run(stop))
        for n, queue_id in enumerate(ids):
            sink.tell(queue_id, EventKind.ACCEPTED, n=n, tls=True, ms=0.5, helo="x")
        stop.set()
    found = await events(reader)
    assert [event.id for event in found] == ids
    assert found[7].fields == {"n": 7, "tls": True, "ms": 0.5, "helo": "x"}
    assert {event.service for event in found} == {"ingress-anon"}
    await gate.close()
    await reader.close()


async def test_what_cannot_be_told_waits_in_order_and_the_oldest_go_first(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_sink, "_KEEP", 10)
    gate = await broker.connect("ingress-anon")
    sink, stop = EventSink(gate, "ingress-anon"), asyncio.Event()
    broker.stop()
    while gate.connected:
        await asyncio.sleep(0.01)
    ids = [new_queue_id() for _ in range(15)]
    for queue_id in ids:
        sink.tell(queue_id, EventKind.ACCEPTED)  # returns at once, whatever the broker does
    assert sink.dropped == 5
    broker.restart()
    reader = await broker.connect(PROVISIONER)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.run(stop))
        while not (found := await events(reader)):
            await asyncio.sleep(0.05)
        stop.set()
    assert [event.id for event in found] == ids[5:]
    await gate.close()
    await reader.close()


async def test_notices_about_the_same_are_one_with_a_count_and_a_flood_of_subjects_is_bounded(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice_sink, "_MOST", 3)
    gate, reader = await broker.connect("ingress-anon"), await broker.connect(PROVISIONER)
    sink, stop = NoticeSink(gate, "ingress-anon", "mx-1"), asyncio.Event()
    for _ in range(1000):
        sink.tell(NoticeKind.COMMAND_TOO_LONG, "192.0.2.1", verb="NOOP", octets=600)
    for n in range(2, 202):
        sink.tell(NoticeKind.COMMAND_TOO_LONG, f"192.0.2.{n}")
    stop.set()
    await sink.run(stop)
    stored = await _get(reader, 1)
    assert stored is not None
    notices = msgspec.json.decode(stored, type=NoticeBatch).notices
    assert [(notice.about, notice.count) for notice in notices] == [
        ("192.0.2.1", 1000),
        ("192.0.2.2", 1),
        ("192.0.2.3", 1),
        ("", 198),
    ]
    assert (notices[0].service, notices[0].instance, notices[0].fields) == (
        "ingress-anon",
        "mx-1",
        {"verb": "NOOP", "octets": 600},
    )
    assert sink.dropped == 0
    await gate.close()
    await reader.close()


async def test_a_status_names_its_instance_and_its_file_is_fresh_only_while_it_is_ready(broker: Broker, tmp_path: Path) -> None:
    gate, api = await broker.connect("ingress-anon"), await broker.connect("api")
    ready, stop = {"ready": True}, asyncio.Event()
    file = tmp_path / "ready"
    reporter = StatusReporter(gate, "ingress-anon", "host.one/2", lambda: dict(ready), ready_file=file)

    async def status() -> ServiceStatus | None:
        value = await api.kv_get("STATUS", "ingress-anon.host-one-2")  # dots and slashes would split the key
        return msgspec.json.decode(value, type=ServiceStatus) if value else None

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(reporter.run(stop))
        while (first := await status()) is None:
            await asyncio.sleep(0.01)
        assert (first.instance, first.ready, first.pid) == ("host-one-2", True, os.getpid())
        assert file.exists()
        ready["ready"] = False
        reporter.poke()
        while (await status()) == first:
            await asyncio.sleep(0.01)
        assert not file.exists()
        stop.set()
    await gate.close()
    await api.close()


def test_the_health_check_believes_a_fresh_file_only(tmp_path: Path) -> None:
    file = tmp_path / "ready"

    def healthy() -> bool:
        check = [sys.executable, "-m", "postern_core.healthcheck"]
        return (
            subprocess.run(
                check, env={**os.environ, "POSTERN_READY_FILE": str(file)}, capture_output=True, check=False
            ).returncode
            == 0
        )

    assert not healthy()
    file.touch()
    assert healthy()
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 21))
    assert not healthy()


def test_the_health_check_of_a_service_that_is_paused_is_good_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "ready"
    for detail in ("paused", ""):
        mark_ready(file, ready=True, detail=detail)
        check = subprocess.run(
            [sys.executable, "-m", "postern_core.healthcheck"],
            env={**os.environ, "POSTERN_READY_FILE": str(file)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert check.stdout.strip() == detail
    os.utime(file, (0, 0))
    mark_ready(file, ready=True)
    assert file.stat().st_mtime > 0


def test_the_brokers_files_are_private_keep_their_passwords_and_hold_every_user(tmp_path: Path) -> None:
    arguments = ["--conf", str(tmp_path / "nats.conf"), "--secrets", str(tmp_path / "secrets"), "--store", str(tmp_path)]
    assert main(arguments) == 0
    files = [tmp_path / "nats.conf", *(tmp_path / "secrets" / user / "nats.password" for user in (*SERVICES, PROVISIONER))]
    first = [file.read_text() for file in files]
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    assert len(set(first[1:])) == len(first[1:])
    assert all(password.strip() in first[0] for password in first[1:])
    assert "sync_interval: always" in first[0]
    assert main(arguments) == 0
    assert [file.read_text() for file in files[1:]] == first[1:]


def test_the_accounts_alone_hold_no_setting_of_the_server(tmp_path: Path) -> None:
    wanted = tmp_path / "authorization.conf"
    assert main(["--authorization", str(wanted), "--secrets", str(tmp_path / "secrets")]) == 0
    assert wanted.read_text().startswith("accounts {\n")
    assert "listen" not in wanted.read_text()


def test_a_file_that_cannot_be_written_is_one_line_and_73(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secrets").write_text("a file where the folder should be")
    assert main(["--authorization", str(tmp_path / "a.conf"), "--secrets", str(tmp_path / "secrets")]) == 73
    assert capsys.readouterr().err.startswith("postern: broker files: ")


def test_a_file_is_replaced_as_a_whole_and_left_alone_when_it_is_right(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, "one")
    inode = file.stat().st_ino
    write_private(file, "one")
    assert file.stat().st_ino == inode
    write_private(file, "two")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("two", 0o400)
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
