"""Clients that mean no good, or are out of order: what they cost the gate is bounded, and the others do not feel it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from fixtures.gates import GateUnderTest, Wire
from postern_core.bus import BodyStore
from postern_core.envelope import BodyRef
from postern_smtp.server import GateConnection

HangingBroker = Callable[[], AbstractAsyncContextManager[None]]
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
FALSE_ENDINGS = (
    b"\n.\n",
    b"\r.\r",
    b"\r.\n",
    b"\n.\r",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\r\n",
)


def connection_of(gate: GateUnderTest, wire: Wire) -> GateConnection:
    """The gate's end of it."""
    name = wire.writer.get_extra_info("sockname")
    for connection in gate.listener._connections:
        assert isinstance(connection, GateConnection)
        if connection.transport is not None and connection.transport.get_extra_info("peername") == name:
            return connection
    raise AssertionError("no such connection")


async def test_a_flood_of_commands_leaves_the_others_their_turn(gate: GateUnderTest) -> None:
    await gate.policy(max_errors=None)
    flood, honest = await gate.session(), await gate.session()
    session = connection_of(gate, flood).session
    reading = asyncio.ensure_future(flood.reader.read(-1))
    flood.writer.write(b"EHLO a\r\n" * 60_000)
    await gate.wait_for(lambda: session.commands > 100)
    # a block of commands is a quarter of a megabyte, and was once obeyed in one go
    for _ in range(10):
        await honest.expect("NOOP", "250")
    assert session.commands < 30_000
    reading.cancel()


async def test_replies_that_nobody_reads_are_not_piled_up(gate: GateUnderTest) -> None:
    await gate.policy(max_errors=None)
    address = gate.listener.addresses[0]
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect((address.host, address.port))
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    sending = asyncio.ensure_future(loop.sock_sendall(deaf, b"EHLO a\r\n" * 1_000_000))
    held = 0

    def is_stuck() -> bool:
        nonlocal held
        transports = [connection.transport for connection in gate.listener._connections if isinstance(connection, GateConnection)]
        held = max([held, *(transport.get_write_buffer_size() for transport in transports if transport is not None)])
        return held > 0 and all(transport is not None and not transport.is_reading() for transport in transports)

    await gate.wait_for(is_stuck)
    assert held < 128 * 1024
    assert (await (await gate.session()).message(MESSAGE)).startswith("250")
    sending.cancel()
    deaf.close()


async def test_noops_without_end_end_in_421(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.send(b"NOOP\r\n" * 200)
    answers = []
    while not answers or answers[-1].startswith("250"):
        answers.append(await wire.reply())
    assert answers[-1].startswith("421 4.7.0")
    assert 100 < len(answers) < 120
    assert await wire.is_closed()


async def test_a_fault_in_the_midst_of_data_ends_the_session(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    wire = await gate.session()
    await wire.transaction()
    await wire.expect("DATA", "354")
    monkeypatch.setattr("postern_smtp.data.DataReader.feed", broken)
    # the rest of the message must not be read as commands
    await wire.send(b"RSET\r\nMAIL FROM:<evil@x.example>\r\nNOOP\r\n")
    assert await wire.reply() == "421 4.3.0 local error, closing the connection"
    assert await wire.is_closed()


@pytest.mark.parametrize("ending", FALSE_ENDINGS)
async def test_no_false_end_of_data_smuggles_a_message(gate: GateUnderTest, ending: bytes) -> None:
    await gate.policy(max_messages=None)
    hidden = b"one" + ending + b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<a@relay.example>\r\nDATA\r\nevil\r\n"
    wire = await gate.session()
    cut = len(b"one")
    for at in range(cut, cut + len(ending) + 1):  # whole, and across segments at every octet of the ending
        await wire.transaction()
        await wire.expect("DATA", "354")
        await wire.send(hidden[:at])
        await wire.expect(hidden[at:] + b".", "550 5.")
        await wire.expect("NOOP", "250")
    assert await gate.intake_count() == 0


@pytest.mark.parametrize("edge", [64 * 1024, 128 * 1024, 256 * 1024])
async def test_no_false_end_at_the_edge_of_a_buffer_smuggles_a_message(gate: GateUnderTest, edge: int) -> None:
    await gate.policy(max_messages=None, max_errors=None, max_session_bytes=None)
    wire, padding = await gate.session(), (b"y" * 70 + b"\r\n") * 4000
    for ending in FALSE_ENDINGS:
        for shift in (1, 2, 3):  # the edge stands behind this octet of the ending
            await wire.transaction()
            await wire.expect("DATA", "354")
            await wire.send(padding[: edge - shift - 3] + b"abc" + ending + b"MAIL FROM:<evil@x.example>\r\n.\r\nNOOP\r\n")
            assert (await wire.reply()).startswith("550 5.")
            assert (await wire.reply()).startswith("250")
    assert await gate.intake_count() == 0


@pytest.mark.parametrize("text", ["\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
async def test_what_only_python_takes_for_a_line_end_is_text(gate: GateUnderTest, text: str) -> None:
    end = text.encode()
    message = b"Subject: x\r\n\r\none" + end + b"." + end + b"MAIL FROM:<evil@x.example>\r\n"
    wire = await gate.session()
    _, body = await gate.stored(await wire.message(message))
    assert body.endswith(message)
    await wire.expect("NOOP", "250")
    assert await gate.intake_count() == 1


async def test_a_message_that_begins_with_white_space_does_not_continue_our_trace_field(gate: GateUnderTest) -> None:
    _, body = await gate.stored(await (await gate.session()).message(b"\tby trusted.example\r\nSubject: x\r\n\r\ntext\r\n"))
    assert body.endswith(b"+0000\r\n\r\n\tby trusted.example\r\nSubject: x\r\n\r\ntext\r\n")


async def test_what_is_being_stored_counts_as_held_when_its_client_has_left(
    gate: GateUnderTest, hanging_broker: HangingBroker
) -> None:
    wire = await gate.session()
    await wire.transaction()
    await wire.expect("DATA", "354")
    memory = gate.listener.memory
    async with hanging_broker():
        await wire.send(MESSAGE * 1000 + b".\r\n")
        await gate.wait_for(lambda: bool(gate.listener._storing))
        # a reset: a client that only shuts its side is still waited for
        wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.writer.transport.abort()
        await gate.wait_for(lambda: gate.listener.connections == 0)
        assert gate.listener._storing
        assert memory.used_bytes == len(MESSAGE * 1000)
    await gate.wait_for(lambda: memory.used_bytes == 0)
    assert await gate.intake_count() == 1


async def test_while_too_much_is_being_stored_small_messages_wait_too(gate: GateUnderTest) -> None:
    memory, wire, sending = gate.listener.memory, await gate.session(), await gate.session()
    await sending.transaction()
    await sending.expect("DATA", "354")
    memory.storing(memory.limit_bytes)
    await sending.send(MESSAGE + b".\r\n")
    assert (await sending.reply()).startswith("452 4.3.1")
    await wire.expect("MAIL FROM:<x@sender.example>", "452 4.3.1")
    await wire.expect("NOOP", "250")
    memory.storing(-memory.limit_bytes)
    assert (await wire.message(MESSAGE)).startswith("250")
    assert memory.used_bytes == 0


async def test_clients_that_stall_in_data_do_not_keep_the_memory_from_others(
    gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postern_smtp.memory._GRACE_S", 0.0)
    gate.listener.memory.limit_bytes = 1_000_000
    stalled = [await gate.session() for _ in range(3)]
    for wire in stalled:
        await wire.transaction()
        await wire.expect("DATA", "354")
        before = gate.listener.memory.used_bytes
        await wire.send((b"y" * 70 + b"\r\n") * 4000)
        await gate.wait_for(lambda before=before: gate.listener.memory.used_bytes >= before + 280_000)  # type: ignore[misc]
    assert (await (await gate.session()).message((b"z" * 70 + b"\r\n") * 5000)).startswith("250")
    answers = []
    for wire in stalled:
        await wire.send(b".\r\n")
        answers.append((await wire.reply())[:9])
    assert "452 4.3.1" in answers
    assert gate.listener.memory.used_bytes == 0


async def test_idle_clients_do_not_keep_others_out(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    await gate.policy(max_connections=3)
    idle, dripping, lively = await gate.session(), await gate.session(), await gate.session()
    await dripping.transaction()
    await dripping.expect("DATA", "354")
    await dripping.send(b"x")
    await lively.expect("NOOP", "250")
    # all of them were heard a moment ago
    assert (await (await gate.connect()).reply()).startswith("421 4.3.2")
    monkeypatch.setattr("postern_smtp.listener._QUIET_S", 0.0)
    first = await gate.session()
    assert (await idle.reply()).startswith("421 4.3.2")
    await lively.expect("NOOP", "250")
    second = await gate.session()
    assert (await dripping.reply()).startswith("421 4.3.2")
    for wire in (lively, first, second):
        assert (await wire.message(MESSAGE)).startswith("250")
    assert gate.listener.connections == 3


async def test_a_message_that_is_being_stored_makes_no_room(
    gate: GateUnderTest, hanging_broker: HangingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gate.policy(max_connections=1)
    monkeypatch.setattr("postern_smtp.listener._QUIET_S", 0.0)
    wire = await gate.session()
    await wire.transaction()
    await wire.expect("DATA", "354")
    async with hanging_broker():
        await wire.send(MESSAGE + b".\r\n")
        await gate.wait_for(lambda: bool(gate.listener._storing))
        assert (await (await gate.connect()).reply()).startswith("421 4.3.2")
    assert (await wire.reply()).startswith("250 2.0.0")


async def test_large_messages_are_stored_a_few_at_a_time(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.listener._acceptance._large = asyncio.Semaphore(2)
    running, most = 0, 0
    put = BodyStore.put

    async def counted(store: BodyStore, name: str, body: bytes, *, head: bytes = b"") -> BodyRef:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await put(store, name, body, head=head)
        finally:
            running -= 1

    monkeypatch.setattr(BodyStore, "put", counted)
    large = (b"y" * 70 + b"\r\n") * 9000
    wires = [await gate.session() for _ in range(6)]
    answers = await asyncio.gather(*(wire.message(large) for wire in wires))
    assert {answer[:9] for answer in answers} == {"250 2.0.0"}
    assert most == 2
