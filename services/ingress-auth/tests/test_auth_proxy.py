"""Behind a load balancer at the authenticated gate: the PROXY header comes before TLS, also where TLS starts at once."""

from __future__ import annotations

import asyncio
import base64
import ssl
import struct
from contextlib import suppress

import pytest

from fixtures.gates import GateUnderTest, Wire
from postern_core.notices import NoticeKind
from postern_core.policy import AccessAction, AccessEntry, ListenerAccess, ListenerPolicy, ListenerProxy
from postern_smtp.proxy_protocol import SIGNATURE

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
BEHIND = ListenerPolicy(proxy=ListenerProxy(trusted_networks=("127.0.0.0/8",)))
TEXT = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 465\r\n"
BINARY = SIGNATURE + b"\x21\x11" + struct.pack("!H", 12) + b"\xc0\x00\x02\x07\xc0\x00\x02\x01\x12\x67\x01\xd1"
PLAIN = base64.b64encode(b"\0Anna@example.com\0w\xc3\xb6rd pass").decode()


async def through(gate: GateUnderTest, header: bytes, port: int, chunk: int = 1 << 20) -> Wire:
    wire = await gate.connect(port)
    for start in range(0, len(header), chunk):
        await wire.send(header[start : start + chunk])
        await asyncio.sleep(0)
    return wire


async def send_mail(gate: GateUnderTest, wire: Wire) -> str:
    """Whose message it is, by the envelope."""
    await wire.expect("EHLO client.example", "250 ")
    await wire.expect(f"AUTH PLAIN {PLAIN}", "235")
    envelope, _ = await gate.stored(await wire.message(MESSAGE))
    return envelope.client.address


@pytest.mark.parametrize("chunk", [1, 4096])
@pytest.mark.parametrize("header", [TEXT, BINARY])
async def test_the_header_comes_before_tls_that_starts_at_once(
    gate: GateUnderTest, client_tls: ssl.SSLContext, header: bytes, chunk: int
) -> None:
    await gate.policy(listener=BEHIND)
    wire = await through(gate, header, 1, chunk)
    await wire.writer.start_tls(client_tls, server_hostname="localhost")
    assert (await wire.reply()).startswith("220 ")
    assert await send_mail(gate, wire) == "192.0.2.7"


@pytest.mark.parametrize("header", [TEXT, BINARY])
async def test_the_header_comes_before_starttls(gate: GateUnderTest, client_tls: ssl.SSLContext, header: bytes) -> None:
    await gate.policy(listener=BEHIND)
    wire = await (await through(gate, header, 0)).greeted()
    await wire.start_tls(client_tls)
    assert await send_mail(gate, wire) == "192.0.2.7"


async def test_a_balancer_that_speaks_for_itself_is_the_client(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    await gate.policy(listener=BEHIND)
    wire = await through(gate, SIGNATURE + b"\x20\x00\x00\x00", 1)
    await wire.writer.start_tls(client_tls, server_hostname="localhost")
    assert (await wire.reply()).startswith("220 ")
    assert await send_mail(gate, wire) == "127.0.0.1"


@pytest.mark.parametrize("port", [0, 1])
async def test_tls_without_the_header_is_turned_away(gate: GateUnderTest, client_tls: ssl.SSLContext, port: int) -> None:
    await gate.policy(listener=BEHIND)
    with pytest.raises(OSError):
        await gate.connect(port, client_tls)
    notice = await gate.notice(NoticeKind.CONNECTION_DENIED)
    assert (notice.about, notice.fields["trusted_proxy"]) == ("127.0.0.1", True)
    await gate.wait_for(lambda: not gate.listener._arriving and gate.listener.connections == 0)


async def test_a_header_in_place_of_a_handshake_is_no_handshake(gate: GateUnderTest) -> None:
    wire = await through(gate, TEXT, 1)
    assert await wire.is_closed()
    await gate.wait_for(lambda: gate.listener._in_handshake.total() == 0)


async def test_a_header_before_tls_that_does_not_come_is_not_waited_for(
    gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postern_smtp.tls_door.HEADER_S", 0.3)
    await gate.policy(listener=BEHIND)
    wire = await through(gate, TEXT[:-1], 1)
    assert await wire.is_closed()
    assert (await gate.notice(NoticeKind.CONNECTION_DENIED)).fields["reason"] == "no PROXY header in time"


async def test_who_is_denied_is_hung_up_on_before_the_handshake(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    deny = AccessEntry(action=AccessAction.DENY, who="192.0.2.7")
    await gate.policy(listener=ListenerPolicy(access=ListenerAccess(entries=(deny,)), proxy=BEHIND.proxy))
    wire = await through(gate, TEXT, 1)
    with pytest.raises(OSError):
        await wire.writer.start_tls(client_tls, server_hostname="localhost")
    assert (await gate.notice(NoticeKind.CONNECTION_DENIED)).about == "192.0.2.7"
    assert (await (await through(gate, TEXT, 0)).reply()).startswith("554 5.7.1 no SMTP service")


async def test_limits_count_the_announced_client_before_the_handshake(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    await gate.policy(listener=BEHIND, max_connections_per_client=1)
    wire = await through(gate, TEXT, 1)
    await wire.writer.start_tls(client_tls, server_hostname="localhost")
    assert (await wire.reply()).startswith("220 ")
    assert await (await through(gate, TEXT, 1)).is_closed()
    other = await through(gate, TEXT.replace(b"192.0.2.7", b"192.0.2.8"), 1)
    await other.writer.start_tls(client_tls, server_hostname="localhost")
    assert (await other.reply()).startswith("220 ")
    other.writer.transport.abort()
    wire.writer.transport.abort()
    await gate.wait_for(lambda: gate.listener.connections == 0 and gate.listener._in_handshake.total() == 0)


async def test_the_end_does_not_wait_for_a_header_before_tls(gate: GateUnderTest) -> None:
    await gate.policy(listener=BEHIND)
    wire = await gate.connect(1)
    await wire.send(TEXT[:5])
    await gate.wait_for(lambda: bool(gate.listener.ports.handshakes))
    gate.stop.set()
    with suppress(ConnectionError):  # what was sent is unread
        assert await wire.reader.read() == b""
