"""Login by client certificate (SASL EXTERNAL, RFC 4422 appendix A) at the authenticated gate, over real sockets."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from fixtures.broker import Broker
from fixtures.certificates import Authority
from fixtures.gates import GateUnderTest, Wire, gate_under_test
from postern_core.credentials import CertificateOwner, SmtpUser, certificate_key, user_key
from postern_core.envelope import Gate
from postern_core.notices import NoticeKind
from postern_core.policy import ListenerAuthentication, ListenerPolicy, Mechanism
from postern_ingress_auth import users
from postern_ingress_auth.app import gate_of
from postern_ingress_auth.settings import Settings

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def gate(broker: Broker, certificate: tuple[Path, Path], authority: Authority) -> AsyncIterator[GateUnderTest]:
    """Port 0 is STARTTLS, port 1 implicit TLS; it asks for certificates."""
    settings = Settings(
        **broker.settings("ingress-auth").model_dump()
        | {
            "listen_starttls": "127.0.0.1:0",
            "listen_tls": "127.0.0.1:0",
            "tls_cert_file": certificate[0],
            "tls_key_file": certificate[1],
            "tls_client_ca_file": authority.file,
            "drain_s": 6,
        }
    )
    async with gate_under_test(broker, Gate.AUTH, lambda bus: gate_of(settings, bus)) as running:
        for user in (
            SmtpUser(name="Anna", password_hash="no hash", certificates=("anna@example.com", "printer 7")),
            SmtpUser(name="gone", password_hash="no hash", certificates=("gone@example.com",), enabled=False),
        ):
            await running.api.kv_put("USERS", user_key(user.name), msgspec.json.encode(user))
            for name in user.certificates:
                await running.api.kv_put("USERS", certificate_key(name), msgspec.json.encode(CertificateOwner(user=user.name)))
        await running.policy()
        yield running


async def mechanisms(wire: Wire) -> list[str]:
    await wire.send(b"EHLO client.example\r\n")
    lines = [(await wire.reader.readline()).decode()]
    while lines[-1][3:4] == "-":
        lines.append((await wire.reader.readline()).decode())
    return lines[-1].split()[2:] if " AUTH " in lines[-1] else []


async def connected(gate: GateUnderTest, tls: ssl.SSLContext, *, implicit: bool = True) -> Wire:
    return await (await gate.connect(1, tls)).greeted() if implicit else await (await gate.session()).start_tls(tls)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("script", [["AUTH EXTERNAL ="], ["AUTH EXTERNAL", ""], ["AUTH EXTERNAL QU5OQQ=="]])  # "ANNA"
async def test_a_verified_certificate_is_a_login(
    gate: GateUnderTest,
    authority: Authority,
    certificate: tuple[Path, Path],
    implicit: bool,
    newest: ssl.TLSVersion,
    script: list[str],
) -> None:
    context = authority.client(certificate[0], emails=("someone@example.com", "Anna@Example.com"), subject="gone@example.com")
    context.maximum_version = newest
    wire = await connected(gate, context, implicit=implicit)
    assert await mechanisms(wire) == ["PLAIN", "LOGIN", "SCRAM-SHA-256", "EXTERNAL"]
    for line in script[:-1]:
        await wire.expect(line, "334 ")
    await wire.expect(script[-1], "235 2.7.0")
    assert (await gate.stored(await wire.message(MESSAGE)))[0].client.user == "Anna"


async def test_a_common_name_counts_where_there_is_no_address(
    gate: GateUnderTest, authority: Authority, certificate: tuple[Path, Path]
) -> None:
    wire = await connected(gate, authority.client(certificate[0], subject="Printer 7"))
    await wire.expect("AUTH EXTERNAL =", "235 2.7.0")
    with_address = authority.client(certificate[0], subject="Printer 7", emails=("nobody@example.com",))
    await (await connected(gate, with_address)).expect("AUTH EXTERNAL =", "535 5.7.8")


@pytest.mark.parametrize(
    ("email", "line"),
    [
        ("nobody@example.com", "AUTH EXTERNAL ="),
        ("nobody@example.com", "AUTH EXTERNAL QW5uYQ=="),  # "Anna", whose it is not
        ("anna@example.com", "AUTH EXTERNAL Z29uZQ=="),  # "gone"
        ("anna@example.com", "AUTH EXTERNAL bm9ib2R5"),  # "nobody"
        ("gone@example.com", "AUTH EXTERNAL ="),
        ("", "AUTH EXTERNAL ="),
    ],
)
async def test_a_certificate_that_is_not_the_users_is_refused_as_a_wrong_password_is(
    gate: GateUnderTest, authority: Authority, certificate: tuple[Path, Path], email: str, line: str
) -> None:
    context = authority.client(certificate[0], subject=email or "unknown")
    wire = await connected(gate, context)
    await wire.expect(line, "535 5.7.8 authentication credentials invalid")
    await wire.expect("MAIL FROM:<a@b.example>", "530 5.7.0")


async def test_without_a_certificate_it_is_not_offered(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    wire = await connected(gate, client_tls)
    assert await mechanisms(wire) == ["PLAIN", "LOGIN", "SCRAM-SHA-256"]
    await wire.expect("AUTH EXTERNAL =", "504 5.5.4")
    plain = await gate.session()
    await plain.expect("AUTH EXTERNAL =", "538 5.7.11")


async def test_where_the_policy_does_not_offer_it_a_certificate_is_none(
    gate: GateUnderTest, authority: Authority, certificate: tuple[Path, Path]
) -> None:
    gate.listener_policy = ListenerPolicy(authentication=ListenerAuthentication(mechanisms=(Mechanism.PLAIN,)))
    await gate.policy()
    wire = await connected(gate, authority.client(certificate[0], emails=("anna@example.com",)))
    assert await mechanisms(wire) == ["PLAIN"]
    await wire.expect("AUTH EXTERNAL =", "504 5.5.4")


@pytest.mark.parametrize("fault", ["another authority", "expired", "of a server"])
async def test_a_certificate_that_does_not_verify_ends_the_handshake(
    gate: GateUnderTest, authority: Authority, certificate: tuple[Path, Path], tmp_path: Path, fault: str
) -> None:
    match fault:
        case "another authority":
            context = Authority(tmp_path, "another authority").client(certificate[0], emails=("anna@example.com",))
        case "expired":
            context = authority.client(certificate[0], emails=("anna@example.com",), expires_in=-timedelta(hours=1))
        case _:
            context = authority.client(certificate[0], emails=("anna@example.com",), usage=ExtendedKeyUsageOID.SERVER_AUTH)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # else the client learns of it only when it reads
    with pytest.raises(OSError):
        await gate.connect(1, context)
    notice = await gate.notice(NoticeKind.TLS_FAILED)
    assert (notice.about, notice.fields) == ("127.0.0.1", {"reason": "certificate verify failed"})
    assert gate.listener.connections == 0


async def test_an_owner_who_is_gone_or_disabled_meanwhile_is_refused(
    gate: GateUnderTest, authority: Authority, certificate: tuple[Path, Path]
) -> None:
    context = authority.client(certificate[0], emails=("anna@example.com",))
    first, second = await connected(gate, context), await connected(gate, context)
    disabled = SmtpUser(name="Anna", password_hash="no hash", certificates=("anna@example.com",), enabled=False)
    await gate.api.kv_put("USERS", user_key("Anna"), msgspec.json.encode(disabled))
    await first.expect("AUTH EXTERNAL =", "535 5.7.8")
    await gate.api.kv_put("USERS", user_key("Anna"), b"")
    await second.expect(f"AUTH EXTERNAL {base64.b64encode(b'Anna').decode()}", "535 5.7.8")


async def test_a_session_ends_when_its_certificate_is_nobodys_any_more(
    gate: GateUnderTest, authority: Authority, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "RECENT_S", 0.0)
    wire = await connected(gate, authority.client(certificate[0], emails=("anna@example.com",)))
    await wire.expect("AUTH EXTERNAL =", "235 2.7.0")
    await wire.expect("MAIL FROM:<anna@example.com>", "250")
    await wire.expect("RSET", "250")
    without = SmtpUser(name="Anna", password_hash="no hash", certificates=("printer 7",))
    await gate.api.kv_put("USERS", user_key("Anna"), msgspec.json.encode(without))
    await wire.expect("MAIL FROM:<anna@example.com>", "530 5.7.0")
