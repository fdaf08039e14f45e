"""Behind a load balancer, over a real socket: the announced client is the client, from trusted networks only."""

from __future__ import annotations

import asyncio
import email
import struct
from contextlib import suppress

import pytest

from fixtures.gates import GateUnderTest, Wire
from postern_core.notices import NoticeKind
from postern_core.policy import AccessAction, AccessEntry, ListenerAccess, ListenerPolicy, ListenerProxy
from postern_smtp.proxy_protocol import SIGNATURE

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
BEHIND = ListenerPolicy(proxy=ListenerProxy(trusted_networks=("127.0.0.1", "2001:db8::/32")))
TEXT = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n"
BINARY = SIGNATURE + b"\x21\x11" + struct.pack("!H", 15) + b"\xc0\x00\x02\x07\xc0\x00\x02\x01\x12\x67\x00\x19" + b"\x04\x00\x00"
SIX = b"PROXY TCP6 2001:db8:1::7 2001:db8::1 4711 25\r\n"


async def through(gate: GateUnderTest, header: bytes, source: str = "127.0.0.1") -> Wire:
    wire = await gate.connect(source=source)
    await wire.send(header)
    return wire


@pytest.mark.parametrize(("header", "client"), [(TEXT, "192.0.2.7"), (BINARY, "192.0.2.7"), (SIX, "2001:db8:1::7")])
async def test_the_announced_client_is_the_client(gate: GateUnderTest, header: bytes, client: str) -> None:
    await gate.policy(listener=BEHIND)
    wire = await (await through(gate, header)).greeted()
    envelope, body = await gate.stored(await wire.message(MESSAGE))
    assert envelope.client.address == client
    assert client in email.message_from_bytes(body)["Received"].split("\n")[0]


@pytest.mark.parametrize("header", [TEXT, BINARY])
async def test_a_header_may_come_octet_by_octet_and_mail_right_behind_it(gate: GateUnderTest, header: bytes) -> None:
    await gate.policy(listener=BEHIND)
    wire = await gate.connect()
    for octet in header[:-1]:
        await wire.send(bytes([octet]))
        await asyncio.sleep(0)
    await wire.send(header[-1:] + b"EHLO client.example\r\n")
    assert (await wire.reply()).startswith("220 ")
    assert (await wire.reply()).startswith("250 ")
    assert next(iter(gate.listener._connections)).session.client_address == "192.0.2.7"


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\x00\x00\x00"])
async def test_a_balancer_that_speaks_for_itself_is_the_client(gate: GateUnderTest, header: bytes) -> None:
    await gate.policy(listener=BEHIND)
    wire = await (await through(gate, header)).greeted()
    envelope, _ = await gate.stored(await wire.message(MESSAGE))
    assert envelope.client.address == "127.0.0.1"


@pytest.mark.parametrize(
    "start",
    [
        b"EHLO client.example\r\n",
        b"PROXY TCP4 nonsense\r\n",
        SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
        b"PROXY UNKNOWN" + b"x" * 200,
    ],
)
async def test_a_trusted_network_that_sends_no_valid_header_is_turned_away(gate: GateUnderTest, start: bytes) -> None:
    await gate.policy(listener=BEHIND)
    wire = await through(gate, start)
    assert await wire.reply() == "421 4.5.0 a valid PROXY header must come first"
    assert await wire.is_closed()
    notice = await gate.notice(NoticeKind.CONNECTION_DENIED)
    assert (notice.about, notice.fields["trusted_proxy"]) == ("127.0.0.1", True)
    assert (gate.listener.connections, gate.listener._arriving) == (0, set())


@pytest.mark.parametrize("header", [TEXT, BINARY, b"PROXY UNKNOWN\r\n"])
@pytest.mark.parametrize("listener", [ListenerPolicy(), BEHIND])
async def test_from_anybody_else_the_header_is_refused(gate: GateUnderTest, header: bytes, listener: ListenerPolicy) -> None:
    await gate.policy(listener=listener)
    wire = await gate.connect(source="127.0.0.2")
    assert (await wire.reply()).startswith("220 ")
    await wire.send(header)
    assert await wire.reply() == "421 4.7.0 no PROXY header is taken from your address"
    assert await wire.is_closed()
    notice = await gate.notice(NoticeKind.CONNECTION_DENIED)
    assert (notice.about, notice.fields["trusted_proxy"]) == ("127.0.0.2", False)


async def test_later_in_a_session_it_is_a_command_that_does_not_exist(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.expect(TEXT.strip(), "500 5.5.2")
    await wire.expect("NOOP", "250")


async def test_a_header_that_does_not_come_is_not_waited_for(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postern_smtp.arriving.HEADER_S", 0.3)
    await gate.policy(listener=BEHIND)
    wire = await through(gate, TEXT[:-1])
    assert (await wire.reply()).startswith("421 4.5.0")
    assert await wire.is_closed()


async def test_a_look_whether_the_port_is_open_is_no_offence(gate: GateUnderTest) -> None:
    await gate.policy(listener=BEHIND)
    wire = await gate.connect()
    wire.writer.write_eof()
    assert await wire.reader.read() == b""
    await gate.wait_for(lambda: not gate.listener._arriving)


async def test_limits_count_the_announced_client(gate: GateUnderTest) -> None:
    await gate.policy(listener=BEHIND, max_connections_per_client=1)
    first, second = await through(gate, TEXT), await through(gate, TEXT)
    assert (await first.reply()).startswith("220 ")
    assert (await second.reply()).startswith("421 4.7.0 too many connections from your address")
    assert (await (await through(gate, SIX)).reply()).startswith("220 ")
    first.writer.close()
    await gate.wait_for(lambda: gate.listener.connections == 1)
    assert (await (await through(gate, TEXT)).reply()).startswith("220 ")


async def test_connection_control_goes_by_the_announced_client(gate: GateUnderTest) -> None:
    entry = AccessEntry(action=AccessAction.DENY, who="192.0.2.0/24")
    await gate.policy(listener=ListenerPolicy(access=ListenerAccess(entries=(entry,)), proxy=BEHIND.proxy))
    assert (await (await through(gate, TEXT)).reply()).startswith("554 5.7.1 no SMTP service")
    assert (await (await through(gate, SIX)).reply()).startswith("220 ")
    assert (await gate.notice(NoticeKind.CONNECTION_DENIED)).about == "192.0.2.7"


async def test_whom_to_trust_changes_while_connections_come(gate: GateUnderTest) -> None:
    await gate.policy(listener=BEHIND)
    assert (await (await through(gate, TEXT)).reply()).startswith("220 ")
    await gate.policy()
    assert (await (await gate.connect()).reply()).startswith("220 ")


async def test_the_end_does_not_wait_for_a_header(gate: GateUnderTest) -> None:
    await gate.policy(listener=BEHIND)
    wire = await gate.connect()
    await gate.wait_for(lambda: bool(gate.listener._arriving))
    gate.stop.set()
    with suppress(ConnectionError):
        assert await wire.reader.read() == b""  # not what is said when its time is up


async def test_a_gate_without_a_policy_does_not_bounce_what_a_balancer_brings(bare_gate: GateUnderTest) -> None:
    wire = await bare_gate.connect()
    assert (await wire.reply()).startswith("220 ")
    await wire.send(TEXT)
    assert (await wire.reply()).startswith("421 ")
