"""Certificates of the anonymous gate over real sockets: chosen by SNI, read again when their files change, and told of before they expire."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from pydantic import ValidationError

from fixtures.broker import Broker
from fixtures.certificates import server_certificate
from fixtures.gates import GateUnderTest, gate_under_test
from postern_core.bus import Bus
from postern_core.control import CertificateStatus
from postern_core.envelope import Gate
from postern_core.errors import ConfigurationError
from postern_core.notices import NoticeKind
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings
from postern_smtp import certificate_facts, tls

NO_BUS = cast("Bus", None)  # for a gate that does not come about


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A default pair for mx.example and localhost, and a folder of further ones."""
    server_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", "mx.example", "localhost")
    folder = tmp_path / "certificates"
    server_certificate(folder / "other.crt", folder / "other.key", "mx.other.example")
    server_certificate(folder / "wild" / "fullchain.pem", folder / "wild" / "privkey.pem", "*.wild.example")
    server_certificate(folder / "secret" / "tls.crt", folder / "secret" / "tls.key", subject="old.example")
    return tmp_path


def settings(broker: Broker, files: Path) -> Settings:
    return Settings(
        **broker.settings("ingress-anon").model_dump()
        | {
            "listen": "127.0.0.1:0",
            "drain_s": 6,
            "tls_cert_file": files / "cert.pem",
            "tls_key_file": files / "key.pem",
            "tls_certificates_dir": files / "certificates",
        }
    )


@pytest.fixture
async def gate(broker: Broker, files: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GateUnderTest]:
    monkeypatch.setattr(tls, "_LOOK_S", 0.05)
    async with gate_under_test(broker, Gate.ANON, lambda bus: gate_of(settings(broker, files), bus)) as running:
        await running.policy()
        yield running


async def shown(gate: GateUnderTest, host: str | None) -> tuple[str, ...]:
    """The names in the certificate that a client gets that asks for this host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    wire = await gate.session()
    await wire.expect("STARTTLS", "220 ")
    await wire.writer.start_tls(context, server_hostname=host)
    await wire.expect("EHLO client.example", "250 ")
    der = wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    await wire.expect("QUIT", "221")
    return names_in(der)


def names_in(der: bytes) -> tuple[str, ...]:
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (certificate.subject.rfc4514_string(),)
    return tuple(found.get_values_for_type(x509.DNSName))


DEFAULT = ("mx.example", "localhost")


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("mx.other.example", ("mx.other.example",)),
        ("MX.Other.Example", ("mx.other.example",)),
        ("a.wild.example", ("*.wild.example",)),
        ("old.example", ("CN=old.example",)),
        ("a.b.wild.example", DEFAULT),  # the asterisk is one label (RFC 6125 section 6.4.3)
        ("wild.example", DEFAULT),
        ("localhost", DEFAULT),
        ("nobody.example", DEFAULT),
        ("", DEFAULT),  # an address asks for no name
    ],
)
async def test_the_certificate_is_the_one_for_the_name_that_is_asked_for(
    gate: GateUnderTest, host: str, names: tuple[str, ...]
) -> None:
    assert await shown(gate, host or "127.0.0.1") == names


async def test_a_certificate_that_is_put_there_is_used_and_one_that_is_taken_away_is_not(
    gate: GateUnderTest, files: Path
) -> None:
    folder = files / "certificates"
    server_certificate(folder / "new.pem", folder / "new.key", "new.example")
    (folder / "other.key").unlink()
    await gate.status(
        lambda status: (
            [Path(each.file).name for each in status.certificates] == ["cert.pem", "new.pem", "tls.crt", "fullchain.pem"]
        )
    )
    assert await shown(gate, "new.example") == ("new.example",)
    assert await shown(gate, "mx.other.example") == DEFAULT


async def test_changed_files_are_used_for_new_handshakes_and_broken_ones_never(gate: GateUnderTest, files: Path) -> None:
    server_certificate(files / "cert.pem", files / "key.pem", "mx.example", "renewed.example")
    await gate.status(lambda status: "renewed.example" in status.certificates[0].names)
    assert await shown(gate, "renewed.example") == ("mx.example", "renewed.example")
    (files / "key.pem").write_text("no key")
    broken = await gate.status(lambda status: bool(status.certificates[0].problem))
    assert broken.certificates[0].problem.startswith("the files as they are cannot be used: ")
    assert broken.certificates[0].names == ("mx.example", "renewed.example")
    notice = await gate.notice(NoticeKind.TLS_FAILED)
    assert notice.about == str(files / "cert.pem")
    assert await shown(gate, "renewed.example") == ("mx.example", "renewed.example")
    server_certificate(files / "cert.pem", files / "key.pem", "mx.example", "mended.example")
    await gate.status(lambda status: "mended.example" in status.certificates[0].names and not status.certificates[0].problem)
    assert await shown(gate, "mended.example") == ("mx.example", "mended.example")


async def test_a_pair_that_never_fitted_is_told_of_and_harms_no_other(
    broker: Broker, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = files / "certificates"
    (folder / "other.key").replace(folder / "wild" / "privkey.pem")
    (folder / "other.key").write_text("")
    async with gate_under_test(broker, Gate.ANON, lambda bus: gate_of(settings(broker, files), bus)) as gate:
        await gate.policy()
        status = await gate.status(lambda status: len(status.certificates) == 4)
        assert [bool(each.problem) for each in status.certificates] == [False, True, False, True]
        assert status.certificates[1].not_after is None
        assert (await gate.notice(NoticeKind.TLS_FAILED)).about == str(folder / "other.crt")
        assert await shown(gate, "old.example") == ("CN=old.example",)


async def test_a_certificate_that_expires_soon_is_told_of_and_shown(broker: Broker, files: Path) -> None:
    folder = files / "certificates"
    server_certificate(folder / "other.crt", folder / "other.key", "mx.other.example", expires_in=timedelta(days=29, hours=1))
    server_certificate(folder / "past.crt", folder / "past.key", "past.example", expires_in=-timedelta(minutes=5))
    async with gate_under_test(broker, Gate.ANON, lambda bus: gate_of(settings(broker, files), bus)) as gate:
        await gate.policy()
        notice = await gate.notice(NoticeKind.CERTIFICATE_EXPIRING)
        assert (notice.about, notice.fields["days_left"]) == (str(folder / "other.crt"), 29)
        status = await gate.status(lambda status: bool(status.certificates))
        by_name = {each.names: each for each in status.certificates}
        soon = by_name["mx.other.example",]
        assert soon.not_after is not None
        assert timedelta(days=29) < soon.not_after - datetime.now(UTC) < timedelta(days=30)
        assert (soon.problem, by_name["past.example",].problem) == ("", "it has expired")


async def test_a_gate_that_no_certificate_names_says_so(gate: GateUnderTest, files: Path) -> None:
    assert (await gate.status(lambda status: status.revision == 1)).certificates[0].problem == ""
    server_certificate(files / "cert.pem", files / "key.pem", "mx.elsewhere.example")
    status = await gate.status(lambda status: "mx.elsewhere.example" in status.certificates[0].names)
    assert status.certificates[0].problem == "no certificate names mx.example, as which this gate answers"


def test_a_default_pair_that_does_not_fit_stops_the_start(broker: Broker, files: Path) -> None:
    (files / "certificates" / "other.key").replace(files / "key.pem")
    with pytest.raises(ConfigurationError, match=r"cert\.pem"):
        gate_of(settings(broker, files), NO_BUS)


def test_a_key_with_a_passphrase_is_refused_without_a_question(broker: Broker, files: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((files / "key.pem").read_bytes(), None)
    (files / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    with pytest.raises(ConfigurationError, match="passphrase"):
        gate_of(settings(broker, files), NO_BUS)


def test_a_folder_of_certificates_needs_a_default_one(broker: Broker, files: Path) -> None:
    values = settings(broker, files).model_dump() | {"tls_cert_file": None, "tls_key_file": None}
    with pytest.raises(ValidationError, match="POSTERN_TLS_CERT_FILE"):
        Settings(**values)
    with pytest.raises(ValidationError, match="no folder"):
        Settings(**(settings(broker, files).model_dump() | {"tls_certificates_dir": files / "cert.pem"}))


def test_the_program_that_looks_into_files_says_what_the_library_says(files: Path) -> None:
    found = [files / "cert.pem", files / "certificates" / "wild" / "fullchain.pem", files / "key.pem", files / "nothing"]
    facts = certificate_facts._ask(found)
    assert facts == [certificate_facts.facts_of(file) for file in found]
    assert [each.names for each in facts] == [DEFAULT, ("*.wild.example",), (), ()]
    assert [bool(each.error) for each in facts] == [False, False, True, True]


def test_it_is_told_again_every_day(files: Path) -> None:
    server_certificate(files / "cert.pem", files / "key.pem", "mx.example", expires_in=timedelta(days=3))
    told: list[tuple[NoticeKind, object]] = []
    server, now = tls.ServerTls(files / "cert.pem", files / "key.pem"), datetime.now(UTC)
    server.notice = lambda kind, about, **fields: told.append((kind, fields["days_left"]))
    for hours in (0, 1, 23, 24, 47, 49):
        server.tell(now + timedelta(hours=hours))
    assert told == [(NoticeKind.CERTIFICATE_EXPIRING, days) for days in (2, 1, 0)]
    assert server.status(now + timedelta(days=4)) == (
        CertificateStatus(
            file=str(files / "cert.pem"),
            names=("mx.example",),
            not_after=server._loaded[server._default].facts.not_after,
            problem="it has expired",
        ),
    )
