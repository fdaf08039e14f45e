"""BDAT and BINARYMIME (RFC 3030) at the anonymous gate, over a real socket, against a real broker."""

from __future__ import annotations

import asyncio
import signal

import pytest

from fixtures.gates import GateUnderTest, Wire
from postern_core.envelope import BodyType
from postern_smtp.server import GateConnection

HEAD = b"Subject: chunks\r\n\r\n"
BINARY = bytes(range(256)) + b"\r\n.\r\nQUIT\r\n\n.\n"


def chunk(data: bytes, *, last: bool = False) -> bytes:
    return f"BDAT {len(data)}{' LAST' if last else ''}\r\n".encode() + data


async def answers(wire: Wire, count: int) -> list[str]:
    return [(await wire.reply())[:9] for _ in range(count)]


async def test_chunks_make_one_message_and_nothing_in_them_ends_it(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.transaction()
    pieces = [HEAD, b".\r\n..\r\n\r\n.\r\nQUIT\r\n", b"", b"no line end"]
    for piece in pieces[:-1]:
        await wire.send(chunk(piece))
        assert (await wire.reply()).startswith("250 2.0.0 chunk")
    await wire.send(chunk(pieces[-1], last=True))
    _, body = await gate.stored(await wire.reply())
    assert body.endswith(b"+0000\r\n" + b"".join(pieces))
    await wire.expect("BDAT 0 LAST", "503 5.5.1")
    await wire.expect("QUIT", "221")


async def test_a_whole_session_of_chunks_may_be_pipelined(gate: GateUnderTest) -> None:
    wire = await gate.session()
    one = b"MAIL FROM:<x@sender.example>\r\nRCPT TO:<a@relay.example>\r\n" + chunk(HEAD) + chunk(b"text\r\n", last=True)
    await wire.send(one * 2 + b"QUIT\r\n")
    expected = ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0"] * 2 + ["221 2.0.0"]
    assert await answers(wire, 9) == expected
    assert await gate.intake_count() == 2


async def test_a_pipelined_group_of_chunks_octet_by_octet(gate: GateUnderTest) -> None:
    wire = await gate.session()
    for octet in b"MAIL FROM:<>\r\nRCPT TO:<a@relay.example>\r\n" + chunk(HEAD) + chunk(b"x\r\n.\r\n", last=True) + b"NOOP\r\n":
        await wire.send(bytes([octet]))
    assert await answers(wire, 3) == ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
    _, body = await gate.stored(await wire.reply())
    assert body.endswith(HEAD + b"x\r\n.\r\n")
    await wire.reply()


@pytest.mark.parametrize("message", [b"", HEAD + b"x\r\n"])
async def test_the_last_chunk_may_be_empty(gate: GateUnderTest, message: bytes) -> None:
    wire = await gate.session()
    await wire.transaction()
    if message:
        await wire.send(chunk(message))
        await wire.reply()
    _, body = await gate.stored(await wire.say("BDAT 0 LAST"))
    assert body.endswith(b"+0000\r\n" + message)


@pytest.mark.parametrize("policy", ["offered", "switched off"])
async def test_a_refused_chunk_is_read_to_its_end_and_never_as_commands(gate: GateUnderTest, policy: str) -> None:
    await gate.policy(max_errors=None, extensions={"chunking": policy == "offered"})
    hidden = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<a@relay.example>\r\nDATA\r\nevil\r\n.\r\n"
    refusal = "503 5.5.1" if policy == "offered" else "502 5.5.1"
    wire = await gate.session()
    for last in (False, True):
        await wire.send(chunk(hidden, last=last) + b"NOOP\r\n")  # no transaction
        assert await answers(wire, 2) == [refusal, "250 2.0.0"]
        await wire.send(b"MAIL FROM:<>\r\nRCPT TO:<a@elsewhere.example>\r\n" + chunk(hidden, last=last) + b"RSET\r\n")
        assert await answers(wire, 4) == ["250 2.1.0", "550 5.7.1", refusal, "250 2.0.0"]
    assert await gate.intake_count() == 0


@pytest.mark.parametrize(
    "line", [b"BDAT", b"BDAT x", b"BDAT -5", b"BDAT 5 LAST LAST", b"BDAT " + b"9" * 21, b"BDAT 5\nNOOP", b"BDAT 1\0"]
)
async def test_after_a_chunk_of_unknown_length_nothing_is_read(gate: GateUnderTest, line: bytes) -> None:
    wire = await gate.session()
    await wire.transaction()
    await wire.send(line + b"\r\nNOOP\r\n")
    assert (await wire.reply()).startswith("501 5.5.")
    assert await wire.reply() == ""
    assert await gate.intake_count() == 0


async def test_a_chunk_of_any_size_is_over_the_limit_before_it_comes(gate: GateUnderTest) -> None:
    await gate.policy(max_message_bytes=10_000)
    wire = await gate.session()
    await wire.transaction()
    await wire.send(b"BDAT 99999999999999999999 LAST\r\n" + b"x" * 100_000)
    (connection,) = gate.listener._connections
    assert isinstance(connection, GateConnection)
    await gate.wait_for(lambda: connection._data is not None)
    assert gate.listener.memory.used_bytes == 0
    wire.writer.transport.abort()
    await gate.wait_for(lambda: gate.listener.connections == 0)
    assert await gate.intake_count() == 0


async def test_message_and_session_limits_hold_while_chunks_come(gate: GateUnderTest) -> None:
    await gate.policy(max_message_bytes=10_000, max_session_bytes=15_000)
    wire, lines = await gate.session(), (b"y" * 70 + b"\r\n") * 100
    await wire.transaction()
    await wire.send(chunk(lines) + chunk(lines) + chunk(b"x\r\n") + chunk(b"z\r\n", last=True) + b"NOOP\r\n")
    # what was refused stays refused: the rest is no message
    assert await answers(wire, 5) == ["250 2.0.0", "552 5.3.4", "552 5.3.4", "552 5.3.4", "250 2.0.0"]
    for reply in ("250 2.0.0", "250 2.0.0", "421 4.7.0"):
        await wire.transaction()
        await wire.send(chunk(lines, last=True))
        assert (await wire.reply()).startswith(reply)
    assert await wire.is_closed()
    assert await gate.intake_count() == 2


async def test_data_and_chunks_do_not_mix(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.transaction()
    await wire.send(chunk(HEAD))
    await wire.reply()
    for command in ("DATA", "MAIL FROM:<>", "RCPT TO:<b@relay.example>"):
        await wire.expect(command, "503 5.5.1")
    await wire.expect("NOOP", "250")
    await wire.send(chunk(b"text\r\n", last=True))
    _, body = await gate.stored(await wire.reply())
    assert body.endswith(HEAD + b"text\r\n")


@pytest.mark.parametrize("command", ["RSET", "EHLO again.example", "HELO again.example"])
async def test_a_reset_in_the_middle_forgets_the_chunks(gate: GateUnderTest, command: str) -> None:
    wire = await gate.session()
    await wire.transaction()
    await wire.send(chunk(b"first half\r\n" * 10))
    await wire.reply()
    assert gate.listener.memory.used_bytes == 120
    await wire.expect(command, "250")
    await wire.transaction()
    assert gate.listener.memory.used_bytes == 0
    await wire.send(chunk(HEAD, last=True))
    _, body = await gate.stored(await wire.reply())
    assert body.endswith(b"+0000\r\n" + HEAD)


@pytest.mark.parametrize("sent", [b"", b"BDAT 20 LAST\r\nhalf of it", b"BDAT 10\r\n0123456789", b"BDAT 20"])
async def test_a_client_that_leaves_in_the_middle_leaves_nothing(gate: GateUnderTest, sent: bytes) -> None:
    wire = await gate.session()
    await wire.transaction()
    await wire.send(chunk(HEAD) + sent)
    await wire.reply()
    wire.writer.close()
    await gate.wait_for(lambda: gate.listener.connections == 0)
    assert (await gate.intake_count(), gate.listener.memory.used_bytes) == (0, 0)


async def test_a_refusal_in_the_middle_leaves_no_half_message(gate: GateUnderTest) -> None:
    """The broker is away when the first chunk comes, and back when the second does."""
    wire = await gate.session()
    await wire.transaction()
    gate.broker.stop(signal.SIGKILL)
    await gate.wait_for(lambda: gate.listener.unavailable() is not None)
    await wire.send(chunk(HEAD))
    assert (await wire.reply()).startswith("451 4.3.0")
    await asyncio.to_thread(gate.broker.restart)
    await gate.wait_for(lambda: gate.listener.unavailable() is None)
    await wire.send(chunk(b"second half\r\n", last=True))
    assert (await wire.reply()).startswith("451 4.3.0")
    assert (await wire.message(HEAD)).startswith("250")
    assert await gate.intake_count() == 1


async def test_who_holds_chunks_makes_room_for_others(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postern_smtp.memory._GRACE_S", 0.0)
    gate.listener.memory.limit_bytes = 300_000
    holder, other = await gate.session(), await gate.session()
    await holder.transaction()
    await holder.send(chunk((b"y" * 70 + b"\r\n") * 4000))
    await holder.reply()
    assert gate.listener.memory.used_bytes == 288_000
    assert (await other.message((b"z" * 70 + b"\r\n") * 3000)).startswith("250")
    await holder.send(chunk(b"the rest\r\n", last=True))
    assert (await holder.reply()).startswith("452 4.3.1")
    assert gate.listener.memory.used_bytes == 0
    assert await gate.intake_count() == 1


async def test_a_drain_lets_a_message_in_chunks_be_finished(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.transaction()
    await wire.send(chunk(HEAD))
    await wire.reply()
    gate.stop.set()
    await gate.wait_for(lambda: gate.listener.is_draining)
    await wire.send(chunk(b"text\r\n", last=True))
    assert await answers(wire, 2) == ["250 2.0.0", "421 4.3.2"]
    assert await wire.is_closed()


async def test_empty_chunks_without_end_end_in_421(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.transaction()
    await wire.send(b"BDAT 0\r\n" * 200)
    said = []
    while not said or said[-1].startswith("250"):
        said.append(await wire.reply())
    assert said[-1].startswith("421 4.7.0")
    assert await wire.is_closed()


async def test_a_binary_message_is_stored_octet_for_octet(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.expect("MAIL FROM:<x@sender.example> BODY=BINARYMIME", "250 2.1.0")
    await wire.expect("RCPT TO:<a@relay.example>", "250")
    await wire.expect("DATA", "503 5.5.1")
    await wire.send(chunk(HEAD + BINARY[:100]) + chunk(BINARY[100:], last=True))
    await wire.reply()
    envelope, body = await gate.stored(await wire.reply())
    assert body.endswith(b"+0000\r\n" + HEAD + BINARY)
    assert envelope.body_type is BodyType.BINARY_MIME


@pytest.mark.parametrize(
    ("body", "refusal"),
    [(b"one\n.\ntwo\r\n", "550 5.5.2"), (b"nul \0\r\n", "550 5.6.0"), (b"Received: x\r\n" * 51 + b"\r\n", "554 5.4.6")],
)
async def test_what_data_would_refuse_is_refused(gate: GateUnderTest, body: bytes, refusal: str) -> None:
    wire = await gate.session()
    await wire.transaction()
    await wire.send(chunk(body, last=True))
    assert (await wire.reply()).startswith(refusal)
    assert (await wire.message(HEAD)).startswith("250")
    assert await gate.intake_count() == 1


async def test_switches_take_the_extensions_away(gate: GateUnderTest) -> None:
    wire = await gate.connect()
    await wire.reply()

    async def offered() -> set[str]:
        await wire.send(b"EHLO client.example\r\n")
        lines = [await wire.reader.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(await wire.reader.readline())
        return {line[4:].split()[0].decode() for line in lines[1:]}

    switchable = {"CHUNKING", "BINARYMIME", "DSN", "LIMITS"}
    assert await offered() >= switchable
    for off, gone in (
        ({"chunking": False}, {"CHUNKING", "BINARYMIME"}),
        ({"binarymime": False}, {"BINARYMIME"}),
        ({"dsn": False}, {"DSN"}),
        ({"limits": False}, {"LIMITS"}),
    ):
        await gate.policy(extensions=off)
        assert (await offered()) & switchable == switchable - gone
        if "BINARYMIME" in gone:
            await wire.expect("MAIL FROM:<> BODY=BINARYMIME", "501 5.5.4")
        if "DSN" in gone:
            await wire.expect("MAIL FROM:<> RET=HDRS", "555 5.5.4")


async def test_limits_are_told_and_kept(gate: GateUnderTest) -> None:
    async def told() -> str:
        wire = await gate.connect()
        await wire.reply()
        await wire.send(b"EHLO client.example\r\n")
        lines = [await wire.reader.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(await wire.reader.readline())
        return "".join(line[4:].decode().strip() for line in lines if line[4:].startswith(b"LIMITS"))

    assert await told() == "LIMITS MAILMAX=20 RCPTMAX=100"
    await gate.policy(max_messages=None, max_recipients=2_000_000)
    assert await told() == ""
    await gate.policy(max_messages=3, max_recipients=2, max_recipient_domains=2)
    assert await told() == "LIMITS MAILMAX=3 RCPTMAX=2 RCPTDOMAINMAX=2"
    wire = await gate.session()
    await wire.transaction("a@relay.example", "b@relay.example")
    await wire.expect("RSET", "250")
    await wire.transaction("a@one.wild.example")
    await wire.expect("RCPT TO:<a@two.wild.example>", "452 4.5.3")
    await wire.expect("RCPT TO:<b@relay.example>", "250")


async def test_a_fault_of_ours_at_a_chunk_ends_the_session(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The octets come later, and must not be read as commands then."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    wire = await gate.session()
    await wire.transaction()
    monkeypatch.setattr("postern_smtp.dialogue.Dialogue._bdat", broken)
    await wire.send(b"BDAT 6 LAST\r\n")
    assert await wire.reply() == "421 4.3.0 local error, closing the connection"
    assert await wire.is_closed()


async def test_a_large_message_in_chunks_is_held_once(gate: GateUnderTest) -> None:
    await gate.policy(max_message_bytes=None, max_session_bytes=None)
    wire, lines = await gate.session(), (b"y" * 70 + b"\r\n") * 20_000
    await wire.transaction()
    for n in range(1, 4):
        await wire.send(chunk(lines))
        await wire.reply()
        assert gate.listener.memory.used_bytes == n * len(lines)
    await wire.send(chunk(b"", last=True))
    envelope, _ = await gate.stored(await wire.reply())
    assert envelope.size_bytes > 3 * len(lines)
    assert gate.listener.memory.used_bytes == 0


async def test_a_chunk_that_drips_is_ended(gate: GateUnderTest) -> None:
    await gate.policy(idle_timeout_s=0.4)
    wire = await gate.session()
    await wire.transaction()
    await wire.send(b"BDAT 5000 LAST\r\n")
    answered = asyncio.ensure_future(wire.reply())
    async with asyncio.timeout(20):
        while not answered.done():
            await wire.send(b"x")
            await asyncio.sleep(0.02)
    assert (await answered).startswith("421 4.4.2")
    await gate.wait_for(lambda: gate.listener.connections == 0)
    assert (await gate.intake_count(), gate.listener.memory.used_bytes) == (0, 0)
