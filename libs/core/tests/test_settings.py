"""Settings: a wrong one ends the program with code 78 and a line that names its variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from postern_core.bus.provision import ProvisionSettings
from postern_core.settings import BusSettings, load


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("POSTERN_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POSTERN_INLINE_LIMIT_BYTES", "many"),
        ("POSTERN_INLINE_LIMIT_BYTES", "9000000"),
        ("POSTERN_DRAIN_S", "-1"),
        ("POSTERN_DRAIN_S", "60"),
        ("POSTERN_LOG_LEVEL", "loud"),
        ("POSTERN_LOG_FORMAT", "xml"),
        ("POSTERN_BROKER_SYNC_UNCONFIRMED", "maybe"),
        ("POSTERN_NATS_PASSWORD_FILE", "/nowhere/nats.password"),
        ("POSTERN_NATS_CA_FILE", "/nowhere"),
        ("POSTERN_BUS_REPLICAS", "0"),
        ("POSTERN_BUS_SCALE", "0"),
        ("POSTERN_ACK_WAIT_S", "nan"),
        ("POSTERN_ACK_WAIT_S", "20"),  # the screener may work for so long before it can say that it does
    ],
)
def test_a_wrong_variable_is_named_and_the_code_is_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        load(ProvisionSettings)
    assert ended.value.code == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"postern: {variable}: ")
    assert value in line


def test_every_wrong_variable_gets_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("POSTERN_LOG_LEVEL", "loud")
    monkeypatch.setenv("POSTERN_DRAIN_S", "soon")
    with pytest.raises(SystemExit):
        load(BusSettings)
    assert {line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines()} == {
        "POSTERN_LOG_LEVEL",
        "POSTERN_DRAIN_S",
    }


def test_the_program_itself_says_so_without_a_traceback() -> None:
    environment = {**os.environ, "POSTERN_BUS_SCALE": "big"}
    ended = subprocess.run(
        [sys.executable, "-m", "postern_core.bus.provision"], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 78
    assert ended.stderr.startswith("postern: POSTERN_BUS_SCALE: ")
    assert "Traceback" not in ended.stderr + ended.stdout


def test_the_password_is_read_without_its_newline_and_does_not_show(tmp_path: Path) -> None:
    file = tmp_path / "nats.password"
    file.write_text("geheim\n")
    settings = BusSettings(nats_password_file=file)
    password = settings.nats_password()
    assert password is not None
    assert password.get_secret_value() == "geheim"
    assert "geheim" not in f"{settings!r} {password!r} {password}"
    assert BusSettings().nats_password() is None


def test_settings_cannot_be_changed_once_they_are_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        BusSettings().drain_s = 1
