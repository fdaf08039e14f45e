"""What happens in the Compose stack before the services start, and the files in deploy/: no engine needed."""

from __future__ import annotations

import importlib.util
import re
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cryptography import x509

from postern_api.bootstrap import BootstrapFile
from postern_core.broker import files as broker_files
from postern_core.broker.names import PROVISIONER, SERVICES
from postern_core.policy import ClamdEngine

ROOT = Path(__file__).parents[2]
NATS_SERVER = Path(sys.executable).parent / "nats-server"


def module_of(path: str) -> ModuleType:
    """A program below deploy/, which is no package."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


prepare = module_of("deploy/compose/prepare.py")
start = module_of("deploy/postgres/start.py")
third_party = module_of("deploy/image/third_party.py")


def contents(folder: Path) -> dict[str, str]:
    """The text of every file; without the size of the disk, which is not ours to keep still."""
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return {name: re.sub("max_file_store: [0-9]+", "", text) for name, text in files.items()}


def test_every_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    prepare.prepare(tmp_path, {"POSTERN_HOSTNAME": "mail.example.com"})
    made = contents(tmp_path)
    assert set(made) == {
        "broker/nats.conf",
        *(f"{user}/nats.password" for user in (*SERVICES, PROVISIONER)),
        "delivery/database.password",
        "api/database.password",
        "database/queue.password",
        "database/control.password",
        "admin/admin-token",
        "demo/demo-user.password",
        "api/first-policy.json",
        "tls/cert.pem",
        "tls/key.pem",
    }
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in made} == {0o400}
    assert made["delivery/database.password"] == made["database/queue.password"]
    assert made["api/database.password"] == made["database/control.password"]
    secrets = [text for name, text in made.items() if name.endswith(("password", "token")) and not name.startswith("database/")]
    assert len(set(secrets)) == len(secrets)
    prepare.prepare(tmp_path, {"POSTERN_HOSTNAME": "mail.example.com"})
    assert contents(tmp_path) == made


def test_a_file_that_was_lost_comes_back_and_the_others_stay(tmp_path: Path) -> None:
    prepare.prepare(tmp_path, {"POSTERN_HOSTNAME": "mail.example.com"})
    before = contents(tmp_path)
    (tmp_path / "screener" / "nats.password").unlink()
    prepare.prepare(tmp_path, {"POSTERN_HOSTNAME": "mail.example.com"})
    after = contents(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"screener/nats.password", "broker/nats.conf"}


def test_a_certificate_that_is_there_is_kept_and_half_of_a_pair_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("theirs")
    with pytest.raises(ValueError, match="no key"):
        prepare.ensure_certificate(tmp_path, "mail.example.com")
    (tmp_path / "key.pem").write_text("theirs")
    prepare.ensure_certificate(tmp_path, "mail.example.com")
    assert (tmp_path / "cert.pem").read_text() == "theirs"


def test_the_certificate_that_is_made_loads_and_names_the_host(tmp_path: Path) -> None:
    prepare.ensure_certificate(tmp_path, "mail.example.com")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    parsed = x509.load_pem_x509_certificate((tmp_path / "cert.pem").read_bytes())
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mail.example.com", "localhost"]


@pytest.mark.parametrize(
    ("smart_host", "host", "port"),
    [
        ("mail.example.com", "mail.example.com", 25),
        ("mail.example.com:2525", "mail.example.com", 2525),
        ("[192.0.2.1]:26", "[192.0.2.1]", 26),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]", 25),
        ("", "smart-host-is-not-set.invalid", 25),
    ],
)
def test_the_first_policy_is_one_that_the_api_takes(smart_host: str, host: str, port: int) -> None:
    made = prepare.first_policy("mail.example.com", smart_host, "example.com, *.example.org,")
    parsed = BootstrapFile.model_validate(made)
    assert made["hostname"] == "mail.example.com"
    assert [(hop.host, hop.port) for hop in parsed.routes[0].smart_hosts] == [(host, port)]
    assert parsed.routes[0].default is True
    assert [domain.pattern for domain in parsed.domains] == ["example.com", "*.example.org"]


@pytest.mark.parametrize("smart_host", ["mail.example.com:smtp", "a b", "2001:db8::1", "[192.0.2.1"])
def test_a_smart_host_that_is_none_is_refused(smart_host: str) -> None:
    with pytest.raises(ValueError, match="POSTERN_SMART_HOST"):
        prepare.first_policy("mail.example.com", smart_host, "")


def test_the_broker_takes_the_configuration_that_is_made(tmp_path: Path) -> None:
    prepare.prepare(tmp_path, {"POSTERN_HOSTNAME": "mail.example.com"})
    check_configuration(tmp_path / "broker" / "nats.conf")


@pytest.mark.parametrize("name", ["nats.conf", "cluster.conf"])
def test_the_reference_configurations_are_valid_and_sync_always(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "deploy" / "nats" / name).read_text()
    assert re.search(r"^\s*sync_interval: always$", text, re.MULTILINE)
    (tmp_path / name).write_text(text)
    arguments = ["--authorization", str(tmp_path / "authorization.conf"), "--secrets", str(tmp_path / "secrets")]
    assert broker_files.main(arguments) == 0
    monkeypatch.setenv("POSTERN_BROKER_NAME", "nats-1")
    monkeypatch.setenv("POSTERN_CLUSTER_PASSWORD", "secret")
    for number in (1, 2, 3):
        monkeypatch.setenv(f"POSTERN_ROUTE_{number}", f"nats://cluster:secret@nats-{number}:6222")
    check_configuration(tmp_path / name)


def check_configuration(path: Path) -> None:
    done = subprocess.run([str(NATS_SERVER), "-t", "-c", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_data_of_another_postgresql_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "15").mkdir()
    assert start.cluster_directory(tmp_path, "15") == tmp_path / "15"
    with pytest.raises(start.RefusedError, match="data of version 15"):
        start.cluster_directory(tmp_path, "17")
    # what an interrupted start left is no data
    (tmp_path / "15").rename(tmp_path / "15.building")
    assert start.cluster_directory(tmp_path, "17") == tmp_path / "17"


@pytest.mark.parametrize("password", ["", "two\nlines"])
def test_a_password_file_that_is_none_is_refused(tmp_path: Path, password: str) -> None:
    for name in start.DATABASES:
        (tmp_path / f"{name}.password").write_text(password)
    with pytest.raises(start.RefusedError):
        start.role_statements(tmp_path)


def test_a_quote_in_a_password_stays_inside_it(tmp_path: Path) -> None:
    for name in start.DATABASES:
        (tmp_path / f"{name}.password").write_text("it's'; DROP TABLE x --\n")
    assert start.role_statements(tmp_path)[0] == "ALTER ROLE queue PASSWORD 'it''s''; DROP TABLE x --'"


def test_an_image_gets_the_packages_of_its_part_and_of_those_below_it() -> None:
    dependencies = {"core": ["msgspec"], "smtp": ["core", "aiosmtpd"], "gate": ["smtp", "argon2-cffi"], "screener": ["core"]}
    assert third_party.third_party("gate", dependencies) == {"msgspec", "aiosmtpd", "argon2-cffi"}
    assert third_party.third_party("screener", dependencies) == {"msgspec"}


def test_the_clamd_of_the_profile_takes_what_it_is_sent_and_never_calls_clean_what_it_did_not_look_at() -> None:
    lines = (ROOT / "deploy" / "clamav" / "clamd.conf").read_text().splitlines()
    settings = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    sizes = [int(settings[name].removesuffix("M")) * 1024**2 for name in ("StreamMaxLength", "MaxFileSize", "MaxScanSize")]
    assert min(sizes) >= ClamdEngine().max_bytes
    assert settings["AlertExceedsMax"] == "yes"


def test_clamd_waits_for_its_first_signatures(tmp_path: Path) -> None:
    clamav = module_of("deploy/clamav/start.py")
    (tmp_path / "tmp.1234").mkdir()
    (tmp_path / "freshclam.dat").touch()
    assert not clamav.has_signatures(tmp_path)
    (tmp_path / "main.cld").touch()
    assert clamav.has_signatures(tmp_path)
