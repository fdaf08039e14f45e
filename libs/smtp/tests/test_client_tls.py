"""STARTTLS as the route asks for it, and credentials that leave us inside TLS only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from fixtures.smart_host import DEFAULT_OFFER, EVERYTHING, SmartHost
from postern_core.envelope import BodyType, Recipient
from postern_core.policy import NextHop, RouteTls
from postern_smtp import client_opening
from postern_smtp.client import ClientOptions, ConnectionFailed, SmtpClient, Transaction

LARGE = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 30_000


@pytest.fixture
async def tls_host(smart_host: SmartHost) -> SmartHost:
    smart_host.offer = EVERYTHING
    return smart_host


@pytest.fixture
def trusted(smart_host: SmartHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The sink's own certificate is the one authority that we trust."""
    authority = tmp_path / "ca.pem"
    authority.write_bytes(smart_host.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    client_opening._tls_context.cache_clear()
    yield
    client_opening._tls_context.cache_clear()


async def deliver(host: SmartHost, tls: RouteTls, *, name: str = "localhost", **changes: object) -> SmtpClient:
    times = {"connect_timeout_s": 5.0, "command_timeout_s": 5.0, "data_timeout_s": 5.0}
    options = ClientOptions(helo_name="relay.example", tls=tls, **(times | changes))  # type: ignore[arg-type]
    client = await SmtpClient.connect(NextHop(host=name, port=host.port), options)
    try:
        await client.send(Transaction("a@b.example", (Recipient(n=0, address="c@d.example"),), LARGE, BodyType.SEVEN_BIT))
    finally:
        await client.quit()
    assert host.messages[-1].data == LARGE
    assert host.messages[-1].tls == client.tls_version
    return client


@pytest.mark.parametrize("tls", [RouteTls.OPPORTUNISTIC, RouteTls.REQUIRED])
async def test_an_offered_starttls_is_used_whatever_the_certificate(tls_host: SmartHost, tls: RouteTls) -> None:
    client = await deliver(tls_host, tls)
    assert client.tls_version == "TLSv1.3"
    assert [c for c in tls_host.commands if c.startswith("EHLO")] == ["EHLO relay.example"] * 2  # RFC 3207 section 4.2
    async with asyncio.timeout(2):
        while tls_host.open_connections:
            await asyncio.sleep(0.001)


async def test_tls_off_means_off(tls_host: SmartHost) -> None:
    await deliver(tls_host, RouteTls.OFF)
    assert "STARTTLS" not in tls_host.commands


async def test_opportunistic_goes_on_without_an_offer(smart_host: SmartHost) -> None:
    assert (await deliver(smart_host, RouteTls.OPPORTUNISTIC)).tls_version == ""


async def test_opportunistic_goes_on_when_starttls_is_refused(tls_host: SmartHost) -> None:
    tls_host.reply_to("STARTTLS", "454 4.7.0 no certificate today")
    await deliver(tls_host, RouteTls.OPPORTUNISTIC)
    assert tls_host.connections == 1


@pytest.mark.parametrize("misfortune", ["garbage", "hang up"])
async def test_opportunistic_connects_anew_when_the_handshake_fails(tls_host: SmartHost, misfortune: str) -> None:
    if misfortune == "garbage":
        tls_host.reply_to("STARTTLS", "220 go ahead\r\nthis is no handshake, is it?")
    else:
        tls_host.hang_up(during="STARTTLS")
    assert (await deliver(tls_host, RouteTls.OPPORTUNISTIC)).tls_version == ""
    assert tls_host.connections == 2


@pytest.mark.parametrize("tls", [RouteTls.REQUIRED, RouteTls.VERIFY])
@pytest.mark.parametrize("misfortune", ["no offer", "refused", "421", "hang up", "HELO only"])
async def test_required_tls_that_does_not_come_about_is_transient(tls_host: SmartHost, tls: RouteTls, misfortune: str) -> None:
    match misfortune:
        case "no offer":
            tls_host.offer = DEFAULT_OFFER
        case "refused":
            tls_host.reply_to("STARTTLS", "502 5.5.1 no")
        case "421":
            tls_host.reply_to("STARTTLS", "421 4.3.2 closing")
        case "hang up":
            tls_host.hang_up(during="STARTTLS")
        case _:
            tls_host.reply_to("EHLO", "500 what?")
    with pytest.raises(ConnectionFailed) as failed:
        await deliver(tls_host, tls)
    assert failed.value.stage == "starttls"
    assert failed.value.reply is None or failed.value.reply.code == 454
    assert tls_host.messages == []


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_verify_accepts_a_trusted_certificate_for_the_name(tls_host: SmartHost, name: str) -> None:
    assert (await deliver(tls_host, RouteTls.VERIFY, name=name)).tls_version == "TLSv1.3"


async def test_verify_refuses_a_certificate_that_nobody_vouches_for(tls_host: SmartHost) -> None:
    with pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED") as failed:
        await deliver(tls_host, RouteTls.VERIFY)
    assert failed.value.stage == "starttls"


async def test_verify_refuses_a_trusted_certificate_for_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = SmartHost(offer=EVERYTHING, names=("other.example",))
    await host.start()
    authority = tmp_path / "ca.pem"
    authority.write_bytes(host.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    client_opening._tls_context.cache_clear()
    try:
        with pytest.raises(ConnectionFailed, match=r"[Hh]ostname mismatch"):
            await deliver(host, RouteTls.VERIFY)
    finally:
        client_opening._tls_context.cache_clear()
        await host.stop()


@pytest.mark.parametrize(
    "injected", [b"250-evil.example\r\n250 AUTH PLAIN\r\n", b"250 AUTH PLAIN\r\n235 welcome\r\n250 ok\r\n", b"250-half"]
)
async def test_what_was_said_before_the_handshake_is_forgotten(tls_host: SmartHost, injected: bytes) -> None:
    """STARTTLS response injection: replies put behind the 220 in plaintext must not answer what we ask inside TLS."""
    tls_host.injected = injected
    tls_host.users = {"relay": "secret"}
    await deliver(tls_host, RouteTls.REQUIRED, credentials=("relay", "secret"))
    assert tls_host.messages[0].auth_user == "relay"


# -- AUTH


@pytest.mark.parametrize("mechanisms", ["PLAIN", "LOGIN", "CRAM-MD5 LOGIN PLAIN"])
async def test_credentials_are_sent_inside_tls(tls_host: SmartHost, mechanisms: str) -> None:
    tls_host.offer = (EVERYTHING - {"AUTH PLAIN LOGIN"}) | {f"AUTH {mechanisms}"}
    tls_host.users = {"relay": "päss"}
    await deliver(tls_host, RouteTls.OPPORTUNISTIC, credentials=("relay", "päss"))
    assert (tls_host.messages[0].auth_user, tls_host.messages[0].tls) == ("relay", "TLSv1.3")


@pytest.mark.parametrize("mechanisms", ["PLAIN", "LOGIN"])
async def test_a_wrong_password_is_transient(tls_host: SmartHost, mechanisms: str) -> None:
    tls_host.offer = (EVERYTHING - {"AUTH PLAIN LOGIN"}) | {f"AUTH {mechanisms}"}
    tls_host.users = {"relay": "right"}
    with pytest.raises(ConnectionFailed) as failed:
        await deliver(tls_host, RouteTls.REQUIRED, credentials=("relay", "wrong"))
    assert failed.value.stage == "auth"
    assert failed.value.reply is not None
    assert (failed.value.reply.code, failed.value.reply.status) == (454, "4.7.0")
    assert "535 5.7.8 authentication failed" in failed.value.reply.text
    assert "wrong" not in str(failed.value)


@pytest.mark.parametrize("tls", [RouteTls.OFF, RouteTls.OPPORTUNISTIC])
async def test_credentials_never_go_out_in_plaintext(smart_host: SmartHost, tls: RouteTls) -> None:
    smart_host.offer = {"AUTH PLAIN LOGIN"}
    with pytest.raises(ConnectionFailed, match="inside TLS only") as failed:
        await deliver(smart_host, tls, credentials=("relay", "secret"))
    assert failed.value.stage == "auth"
    assert not any(command.startswith("AUTH") for command in smart_host.commands)


async def test_a_peer_without_auth_does_not_get_the_mail_instead(tls_host: SmartHost) -> None:
    tls_host.offer = EVERYTHING - {"AUTH PLAIN LOGIN"}
    with pytest.raises(ConnectionFailed, match="offers neither") as failed:
        await deliver(tls_host, RouteTls.REQUIRED, credentials=("relay", "secret"))
    assert failed.value.stage == "auth"


async def test_cancelled_in_the_handshake_nothing_stays_open(smart_host: SmartHost) -> None:
    closed = asyncio.Event()
    reached = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 STARTTLS\r\n")
        await reader.readline()
        writer.write(b"220 go\r\n")
        await reader.readexactly(1)  # of the handshake, which we never answer
        reached.set()
        while await reader.read(4096):
            pass
        closed.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    smart_host.port = server.sockets[0].getsockname()[1]
    task = asyncio.create_task(deliver(smart_host, RouteTls.OPPORTUNISTIC))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(2):
        await closed.wait()
    server.close()


@pytest.mark.parametrize("tls", list(RouteTls))
@pytest.mark.parametrize("handshake", ["good", "garbage", "hang up"])
def test_the_same_on_uvloop(tls: RouteTls, handshake: str) -> None:
    """Services run on uvloop, whose TLS is its own."""

    async def scenario() -> None:
        host = SmartHost(offer=EVERYTHING)
        await host.start()
        if handshake == "garbage":
            host.reply_to("STARTTLS", "220 go ahead\r\nthis is no handshake, is it?")
        elif handshake == "hang up":
            host.hang_up(during="STARTTLS")
        if tls is RouteTls.VERIFY or (tls is RouteTls.REQUIRED and handshake != "good"):
            with pytest.raises(ConnectionFailed) as failed:
                await deliver(host, tls)
            assert failed.value.stage == "starttls"
            assert host.messages == []
        else:
            client = await deliver(host, tls)
            assert client.tls_version == ("TLSv1.3" if tls is not RouteTls.OFF and handshake == "good" else "")
        async with asyncio.timeout(2):
            while host.open_connections:
                await asyncio.sleep(0.001)
        await host.stop()

    uvloop.run(scenario())
