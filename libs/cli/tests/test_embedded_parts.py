"""State directory, certificate, broker binary, demo policy and log watch of the embedded stack."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from postern_cli import broker_binary
from postern_cli.addresses import Addresses
from postern_cli.certificate import ensure_certificate
from postern_cli.demo import RELAY_DOMAINS, demo_policy
from postern_cli.layout import Layout, locked
from postern_cli.log_watch import LogWatch, condensed
from postern_cli.programs import STOP_ORDER, Programs, programs
from postern_cli.supervisor import run_to_end
from postern_core.errors import ConfigurationError
from postern_smtp.certificate_facts import facts_of


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    with locked(tmp_path / "var") as layout:
        layout.prepare()
    return layout


def test_a_second_stack_in_one_state_directory_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "var"), pytest.raises(ConfigurationError, match=r"running in .*var already"), locked(tmp_path / "var"):
        pass
    with locked(tmp_path / "var"):
        pass


def test_a_state_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"--state .*file/var"), locked(tmp_path / "file" / "var"):
        pass


def test_state_and_secrets_are_ours_alone_and_survive_a_second_start(layout: Layout) -> None:
    assert layout.state.stat().st_mode & 0o777 == 0o700
    passwords = layout.broker_passwords()
    token = layout.admin_token.read_text()
    for path in (layout.admin_token, layout.demo_password, *map(layout.password_file, passwords)):
        assert path.stat().st_mode & 0o077 == 0, path
    layout.endpoints.touch()
    layout.prepare()
    assert layout.broker_passwords() == passwords
    assert layout.admin_token.read_text() == token
    assert not layout.endpoints.exists(), "a killed stack must not seem to run"
    assert len(set(passwords.values())) == len(passwords)


@pytest.fixture
def started(layout: Layout, tmp_path: Path) -> Programs:
    return programs(layout, Addresses(nats="127.0.0.1:4222", monitor="127.0.0.1:8222"), tmp_path / "nats-server", 1)


def test_every_program_stops_and_only_the_broker_knows_all_passwords(layout: Layout, started: Programs) -> None:
    everything = (started.broker, started.certificate, started.provisioner, *started.others)
    stopped = (started.broker, *started.others)
    assert sorted(name for names in STOP_ORDER for name in names) == sorted(program.name for program in stopped)
    configuration = layout.broker_config.read_text()
    assert layout.broker_config.stat().st_mode & 0o077 == 0
    assert layout.bootstrap.stat().st_mode & 0o077 == 0
    for user, password in layout.broker_passwords().items():
        assert password in configuration
        holders = [program.name for program in everything if layout.password_file(user).name in str(program.environment)]
        assert holders == [user]
        assert not any(password in str(program.environment) + str(program.command) for program in everything)


def test_the_certificate_is_kept_until_it_ends_or_does_not_fit_its_key(tmp_path: Path) -> None:
    certificate, key = ensure_certificate(tmp_path)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    assert key.stat().st_mode & 0o077 == 0
    # else the gate would say that no certificate names it
    assert demo_policy("127.0.0.1:25", "a password")["hostname"] in facts_of(certificate).names
    first = certificate.read_bytes()
    assert ensure_certificate(tmp_path)[0].read_bytes() == first
    second = ensure_certificate(tmp_path, now=datetime.now(UTC) + timedelta(days=390))[0].read_bytes()
    assert second != first
    key.unlink()
    key.write_text("damaged")
    assert ensure_certificate(tmp_path)[0].read_bytes() != second
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)


async def test_the_gate_is_given_the_certificate_that_is_made(layout: Layout, started: Programs) -> None:
    await run_to_end(started.certificate)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(layout.certificate, layout.certificate_key)


async def test_a_certificate_that_cannot_be_made_is_told_in_one_line(layout: Layout, started: Programs) -> None:
    layout.tls.rmdir()
    layout.tls.touch()
    with pytest.raises(ConfigurationError, match=r"^certificate: NotADirectoryError[^\n]*tls[^\n]* \(log: .*certificate\.log\)$"):
        await run_to_end(started.certificate)


async def test_a_wrong_size_of_the_broker_s_storage_is_told_in_one_line(started: Programs) -> None:
    wrong = replace(started.provisioner, environment={**started.provisioner.environment, "POSTERN_BUS_REPLICAS": "9"})
    with pytest.raises(ConfigurationError, match=r"^provisioner: [^\n]*POSTERN_BUS_REPLICAS[^\n]*provisioner\.log\)$"):
        await run_to_end(wrong)


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("postern_cli.main, postern_cli.embedded", ("rich", "httpx", "cryptography", "nats", "pydantic")),
        ("postern_api.__main__", ("rich", "asyncpg", "sqlalchemy.dialects.postgresql")),
        ("postern_delivery.__main__", ("rich", "asyncpg", "sqlalchemy.dialects.postgresql")),
        ("postern_screener.__main__", ("rich",)),
        ("postern_ingress_anon.__main__", ("rich",)),
        ("postern_ingress_auth.__main__", ("rich",)),
    ],
)
def test_an_idle_stack_holds_no_library_that_it_does_not_use(program: str, absent: tuple[str, ...]) -> None:
    """Each of these was two to eleven megabytes in a process that never called it."""
    names = subprocess.run(
        [sys.executable, "-c", f"import sys, {program}; print(*sys.modules)"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert [name for name in absent if name in names] == []


def _fake_broker(folder: Path, version: str) -> Path:
    folder.mkdir()
    path = folder / "nats-server"
    path.write_text(f"#!/bin/sh\necho 'nats-server: v{version}'\n")
    path.chmod(0o755)
    return path


def test_the_first_broker_that_is_new_enough_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = _fake_broker(tmp_path / "old", "2.9.10")
    new = _fake_broker(tmp_path / "new", "2.12.12")
    monkeypatch.setenv("PATH", f"{old.parent}::{new.parent}:/bin")
    assert broker_binary.find_broker() == new


def test_without_a_good_broker_the_error_says_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = _fake_broker(tmp_path / "old", "2.12.11")
    monkeypatch.setenv("PATH", f"{old.parent}:/bin")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(ConfigurationError, match=r"2\.12\.12 or newer: found .*old/nats-server \(2\.12\.11\)"):
        broker_binary.find_broker()


def test_the_demo_policy_has_a_rule_of_each_family_and_a_way_out() -> None:
    policy = demo_policy("[::]:2626", "secret")
    assert {rule["condition"]["type"] for rule in policy["rules"]} == {"sender", "attachment", "keyword"}
    assert policy["routes"][0]["smart_hosts"] == [{"host": "[::1]", "port": 2626}]
    assert [domain["pattern"] for domain in policy["domains"]] == list(RELAY_DOMAINS)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            json.dumps({"event": "bus.disconnected", "level": "warning", "timestamp": "now", "n": 1}),
            "warning: bus.disconnected n=1",
        ),
        (json.dumps({"event": "recipient.deferred", "level": "info", "reason": "warning"}), ""),
        ('{"level": "error"', ""),
        ('["error"]', ""),
        ("postern: api: POSTERN_LISTEN: wrong", "postern: api: POSTERN_LISTEN: wrong"),
        ("[7] 2026/01/01 00:00:00.000000 [INF] Server is ready", ""),
        ("[7] 2026/01/01 00:00:00.000000 [ERR] disk", "[7] 2026/01/01 00:00:00.000000 [ERR] disk"),
    ],
)
def test_warnings_are_shown_in_short_and_nothing_else(line: str, shown: str) -> None:
    assert condensed(line) == shown


def test_the_log_watch_shows_what_is_new_whole_and_not_too_much(tmp_path: Path) -> None:
    log, late = tmp_path / "api.log", tmp_path / "late.log"
    log.write_text("postern: old\n")
    shown: list[str] = []
    watch = LogWatch([log, late], shown.append)
    with log.open("a") as file:
        file.write("postern: one\npostern: tw")
        file.flush()
        watch.look()
        assert [line.split(maxsplit=1)[1] for line in shown] == ["postern: one"]
        file.write("o\n" + "postern: more\n" * 10)
        file.flush()
    late.write_text("postern: late\n")
    shown.clear()
    watch.look()
    assert shown[0].split(maxsplit=1)[1] == "postern: two"
    assert "6 more" in shown[5]
    assert shown[6].split(maxsplit=1)[1] == "postern: late"
    assert len(shown) == 7
