"""The anonymous gate over a real socket, against a real broker: what it stores, and what it refuses."""

from __future__ import annotations

import asyncio
import socket

import pytest

from fixtures.gates import GateUnderTest
from postern_core.bus import BodyStore
from postern_core.envelope import BodyType, Recipient
from postern_core.ids import accepted_at, parse_queue_id
from postern_smtp.server import GateConnection

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


async def test_what_is_stored_is_what_was_sent_behind_our_trace_field(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.expect("MAIL FROM:<X@Sender.example> BODY=8BITMIME RET=HDRS ENVID=abc", "250 2.1.0")
    await wire.expect("RCPT TO:<a@Relay.example> NOTIFY=NEVER", "250 2.1.5")
    await wire.expect("RCPT TO:<b@elsewhere.example>", "550 5.7.1")
    await wire.expect("RCPT TO:<c@sub.wild.example> ORCPT=rfc822;c@old.example", "250 2.1.5")
    await wire.expect("DATA", "354 ")
    await wire.send(b"Subject: x\r\n\r\n..dot\r\n...\r\n\xc3\xa9\r\n.\r\n")
    envelope, body = await gate.stored(await wire.reply())
    assert body.endswith(b"\r\nSubject: x\r\n\r\n.dot\r\n..\r\n\xc3\xa9\r\n")
    assert body.startswith(
        b"Received: from client.example ([127.0.0.1])\r\n\tby mx.example (Postern) with ESMTP\r\n\tid " + envelope.id.encode()
    )
    assert b"for <" not in body
    assert envelope.reverse_path == "X@sender.example"
    assert envelope.recipients == (
        Recipient(n=0, address="a@relay.example", notify="NEVER"),
        Recipient(n=1, address="c@sub.wild.example", orcpt="rfc822;c@old.example"),
    )
    assert envelope.size_bytes == len(body)
    assert (envelope.body_type, envelope.ret, envelope.envid) == (BodyType.EIGHT_BIT_MIME, "HDRS", "abc")
    assert (envelope.client.address, envelope.client.helo) == ("127.0.0.1", "client.example")
    assert envelope.accepted_at == accepted_at(parse_queue_id(envelope.id))
    await wire.expect("QUIT", "221 2.0.0")
    assert await wire.is_closed()


async def test_a_pipelined_session_gets_its_answers_in_order(gate: GateUnderTest) -> None:
    wire = await gate.session()
    one = b"MAIL FROM:<x@sender.example>\r\nRCPT TO:<a@relay.example>\r\nDATA\r\n"
    await wire.send(one)
    assert [(await wire.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
    # the next transaction right behind the end of data (RFC 2920)
    await wire.send(MESSAGE + b".\r\n" + one)
    assert [(await wire.reply())[:3] for _ in range(4)] == ["250", "250", "250", "354"]
    await wire.send(MESSAGE + b".\r\nQUIT\r\n")
    assert [(await wire.reply())[:3] for _ in range(2)] == ["250", "221"]
    assert await gate.intake_count() == 2


async def test_the_answers_to_a_pipelined_batch_leave_in_one_write(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await gate.session()
    (connection,) = gate.listener._connections
    assert isinstance(connection, GateConnection)
    written: list[bytes] = []
    write = connection._writer.write

    def noted(wire: bytes) -> None:
        written.append(wire)
        write(wire)

    monkeypatch.setattr(connection._writer, "write", noted)
    await wire.send(b"MAIL FROM:<x@sender.example>\r\nRCPT TO:<a@relay.example>\r\nRCPT TO:<a@elsewhere.example>\r\nDATA\r\n")
    assert [(await wire.reply())[:3] for _ in range(4)] == ["250", "250", "550", "354"]
    assert len(written) == 1


async def test_the_answers_to_a_pipelined_batch_come_in_one_segment(gate: GateUnderTest) -> None:
    address = gate.listener.addresses[0]
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, (address.host, address.port))
        assert (await loop.sock_recv(client, 65_536)).startswith(b"220 ")
        group = b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@elsewhere.example>\r\nRCPT TO:<a@relay.example>\r\n"
        for end, last in ((b"DATA\r\n", b"354"), (b"BDAT 3\r\nx\r\nNOOP\r\nRSET\r\n", b"250")):
            await loop.sock_sendall(client, group + end)
            said = [line for line in (await loop.sock_recv(client, 65_536)).splitlines() if line[3:4] == b" "]
            assert [line[:3] for line in said[:4]] == [b"250", b"250", b"550", b"250"]
            assert (said[-1][:3], len(said)) == (last, 5 if last == b"354" else 7)
            if last == b"354":
                await loop.sock_sendall(client, MESSAGE + b".\r\n")
                assert (await loop.sock_recv(client, 65_536)).startswith(b"250 ")


async def test_a_client_that_shuts_its_side_still_gets_its_answers(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.send(b"MAIL FROM:<>\r\nRCPT TO:<a@relay.example>\r\nDATA\r\n" + MESSAGE + b".\r\nQUIT\r\n")
    wire.writer.write_eof()
    assert [(await wire.reply())[:3] for _ in range(5)] == ["250", "250", "354", "250", "221"]
    assert await gate.intake_count() == 1


async def test_a_large_message_travels_by_reference(gate: GateUnderTest) -> None:
    body = b"Subject: big\r\n\r\n" + (b"x" * 70 + b"\r\n") * 20_000
    envelope, inline = await gate.stored(await (await gate.session()).message(body))
    assert inline == b""
    assert envelope.body is not None
    assert envelope.body.name == f"ingress-anon.{envelope.id}"
    stored = await BodyStore(gate.api, "api", 1024).get(envelope.body)
    assert stored.endswith(body)
    assert len(stored) == envelope.size_bytes


async def test_a_message_octet_by_octet_is_the_same_message(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.transaction()
    await wire.expect("DATA", "354")
    for octet in MESSAGE + b".\r\nNOOP\r\n":
        await wire.send(bytes([octet]))
    _, body = await gate.stored(await wire.reply())
    assert body.endswith(b"\r\n" + MESSAGE)
    assert (await wire.reply()).startswith("250")


async def test_an_empty_message_is_a_message(gate: GateUnderTest) -> None:
    _, body = await gate.stored(await (await gate.session()).message(b""))
    assert body.startswith(b"Received: ")
    assert body.endswith(b"+0000\r\n")


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"one\n.\ntwo\r\n", "550 5.5.2"),
        (b"one\r.\rtwo\r\n", "550 5.5.2"),
        (b"one\r\n.\nMAIL FROM:<evil@x.example>\r\n", "550 5.5.2"),
        (b"nul \0\r\n", "550 5.6.0"),
        (b"z" * 3000 + b"\r\n", "554 5.6.0"),
        (b"Received: x\r\n" * 51 + b"\r\n", "554 5.4.6"),
    ],
)
async def test_bad_data_is_refused_and_the_dialogue_stays_in_step(gate: GateUnderTest, data: bytes, refusal: str) -> None:
    wire = await gate.session()
    assert (await wire.message(data)).startswith(refusal)
    await wire.expect("NOOP", "250")
    assert (await wire.message(MESSAGE)).startswith("250")
    assert await gate.intake_count() == 1


async def test_bare_newlines_are_normalised_by_setting(gate: GateUnderTest) -> None:
    await gate.policy(bare_newline="normalise")
    _, body = await gate.stored(await (await gate.session()).message(b"a\nb\rc\r\n.\n.d\r\n"))
    assert body.endswith(b"\r\na\r\nb\r\nc\r\n\r\n.d\r\n")


async def test_nonsense_gets_a_clear_reply(gate: GateUnderTest) -> None:
    await gate.policy(max_errors=None)
    wire = await gate.session()
    for line, refusal in (
        (b"FROB", "500 5.5.2"),
        (b"\xff\xfe", "500 5.5.2"),
        (b"x" * 5000, "500 5.5.2"),
        (b"x" * 50_000, "500 5.5.2"),
        (b"\0\0\0", "501 5.5.2"),
        (b"MAIL FROM:<a\nb@c.example>", "501 5.5.2"),
        (b"RCPT TO:<a@relay.example>", "503 5.5.1"),
        (b"DATA", "503 5.5.1"),
        (b"AUTH PLAIN AGEAYg==", "502 5.5.1"),
        (b"STARTTLS", "502 5.5.1"),
    ):
        await wire.expect(line, refusal)
    await wire.expect("VRFY a", "252 2.5.0")
    await wire.expect("NOOP", "250")


async def test_message_text_is_never_read_as_commands(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.send(b"MAIL FROM:<>\r\nRCPT TO:<a@elsewhere.example>\r\nDATA\r\nRSET\r\n")
    assert [(await wire.reply())[:9] for _ in range(3)] == ["250 2.1.0", "550 5.7.1", "554 5.5.0"]
    assert await wire.is_closed()
