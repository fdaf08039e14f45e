"""Each limit of the anonymous gate over a real socket, and each of them switched off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fixtures.gates import GateUnderTest, Wire
from postern_smtp.server import GateConnection

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


async def test_too_large_is_refused_at_mail_and_at_the_end_of_data(gate: GateUnderTest) -> None:
    await gate.policy(max_message_bytes=10_000)
    wire = await gate.session()
    await wire.expect("MAIL FROM:<x@sender.example> SIZE=10001", "552 5.3.4")
    assert (await wire.message(b"y" * 70 + b"\r\n" + (b"z" * 70 + b"\r\n") * 5000)).startswith("552 5.3.4")
    assert (await wire.message(b"y" * 9_00 + b"\r\n")).startswith("250")


async def test_recipient_101_goes_into_a_second_transaction(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.expect("MAIL FROM:<x@sender.example>", "250")
    recipients = [f"r{n}@relay.example" for n in range(103)]
    answers = [await wire.say(f"RCPT TO:<{recipient}>") for recipient in recipients]
    assert [answer[:9] for answer in answers] == ["250 2.1.5"] * 100 + ["452 4.5.3"] * 3
    await wire.expect("DATA", "354")
    await wire.send(MESSAGE + b".\r\n")
    first, _ = await gate.stored(await wire.reply())
    await wire.transaction(*recipients[100:])
    await wire.expect("DATA", "354")
    await wire.send(MESSAGE + b".\r\n")
    second, _ = await gate.stored(await wire.reply())
    assert [recipient.address for recipient in (*first.recipients, *second.recipients)] == recipients


async def test_the_21st_message_gets_421(gate: GateUnderTest) -> None:
    wire = await gate.session()
    for _ in range(20):
        assert (await wire.message(MESSAGE)).startswith("250")
    await wire.expect("MAIL FROM:<x@sender.example>", "421 4.7.0")
    assert await wire.is_closed()
    assert (await (await gate.session()).message(MESSAGE)).startswith("250")


async def test_a_session_that_sent_too_much_gets_421(gate: GateUnderTest) -> None:
    await gate.policy(max_message_bytes=10_000, max_session_bytes=20_000)
    wire = await gate.session()
    data = (b"y" * 70 + b"\r\n") * 125
    assert (await wire.message(data)).startswith("250")
    assert (await wire.message(data)).startswith("250")
    assert (await wire.message(data)).startswith("421 4.7.0")
    assert await wire.is_closed()
    assert await gate.intake_count() == 2


async def test_every_limit_can_be_switched_off(gate: GateUnderTest) -> None:
    await gate.policy(
        max_message_bytes=None,
        max_session_bytes=None,
        max_messages=None,
        max_recipients=None,
        max_errors=None,
        max_connections=None,
        max_connections_per_client=None,
        session_timeout_s=None,
        max_hops=None,
    )
    wire = await gate.session()
    for _ in range(25):
        await wire.expect("FROB", "500")
    for _ in range(25):
        assert (await wire.message(MESSAGE)).startswith("250")
    await wire.transaction(*[f"r{n}@relay.example" for n in range(150)])
    await wire.expect("RSET", "250")
    assert (await wire.message(b"Received: x\r\n" * 200 + b"\r\n" + (b"y" * 70 + b"\r\n") * 60_000)).startswith("250")


async def test_one_error_too_many_gets_421(gate: GateUnderTest) -> None:
    await gate.policy(max_errors=3)
    wire = await gate.session()
    for _ in range(3):
        await wire.expect("FROB", "500 5.5.2")
    await wire.expect("FROB", "421 4.7.0")
    assert await wire.is_closed()


async def test_connections_are_limited_in_total_and_for_each_client(gate: GateUnderTest) -> None:
    for limits, refusal in (({"max_connections": 2}, "421 4.3.2"), ({"max_connections_per_client": 2}, "421 4.7.0")):
        await gate.policy(**limits)
        first, second, third = await gate.session(), await gate.session(), await gate.connect()
        assert (await third.reply()).startswith(refusal)
        assert await third.is_closed()
        await first.expect("QUIT", "221")
        assert await first.is_closed()
        await gate.wait_for(lambda: gate.listener.connections == 1)
        fourth = await gate.session()
        for wire in (second, fourth):
            await wire.expect("QUIT", "221")
        await gate.wait_for(lambda: gate.listener.connections == 0)


async def test_an_idle_client_is_told_and_dropped(gate: GateUnderTest) -> None:
    await gate.policy(idle_timeout_s=0.2)
    for begin in (b"", b"NO", b"MAIL FROM:<>\r\nRCPT TO:<a@relay.example>\r\nDATA\r\nhalf a line"):
        wire = await gate.session()
        await wire.send(begin)
        last = [line async for line in _lines(wire)][-1]
        assert last.startswith("421 4.4.2")


async def test_a_shorter_idle_time_holds_from_the_next_command_on(gate: GateUnderTest) -> None:
    await gate.policy(idle_timeout_s=600)
    wire = await gate.session()
    await gate.policy(idle_timeout_s=0.2)
    await wire.expect("NOOP", "250")
    assert (await wire.reply()).startswith("421 4.4.2")


async def test_the_time_for_data_is_not_the_time_for_the_next_command(gate: GateUnderTest) -> None:
    """Was: between two messages a client had `data_block_timeout_s`."""
    await gate.policy(idle_timeout_s=60, data_block_timeout_s=0.3)
    wire = await gate.session()
    connection = gate.listener.open_connections[0]
    assert (await wire.message(MESSAGE)).startswith("250 2.0.0")
    await gate.wait_for(lambda: asyncio.get_running_loop().time() - connection.quiet_since > 0.6)
    await wire.expect("NOOP", "250")


async def test_a_longer_idle_time_holds_from_the_next_command_on(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = GateConnection._timeout_cb

    def looked(connection: GateConnection) -> None:
        nonlocal looks
        looks += 1
        look(connection)

    monkeypatch.setattr(GateConnection, "_timeout_cb", looked)
    await gate.policy(idle_timeout_s=2)
    wire = await gate.session()
    await gate.policy(idle_timeout_s=600)
    await wire.expect("NOOP", "250")
    # the clock of the shorter time goes off, and runs on
    await gate.wait_for(lambda: looks > 0)
    await wire.expect("NOOP", "250")


async def test_a_session_that_drips_is_ended(gate: GateUnderTest) -> None:
    await gate.policy(session_timeout_s=0.5, idle_timeout_s=100)
    wire = await gate.session()
    async with asyncio.timeout(20):
        while not (await wire.say("NOOP")).startswith("421 4.4.2"):
            await asyncio.sleep(0.02)
    assert await wire.is_closed()


async def test_a_command_that_drips_is_ended(gate: GateUnderTest) -> None:
    await gate.policy(idle_timeout_s=0.4)
    wire = await gate.session()
    answered = asyncio.ensure_future(wire.reply())
    async with asyncio.timeout(20):
        while not answered.done():
            await wire.send(b"x")
            await asyncio.sleep(0.02)
    assert (await answered).startswith("421 4.4.2")


async def test_data_that_drips_is_ended(gate: GateUnderTest) -> None:
    await gate.policy(idle_timeout_s=0.4)
    wire = await gate.session()
    await wire.transaction()
    await wire.expect("DATA", "354")
    answered = asyncio.ensure_future(wire.reply())
    async with asyncio.timeout(20):
        while not answered.done():
            await wire.send(b"x")
            await asyncio.sleep(0.02)
    assert (await answered).startswith("421 4.4.2")


async def test_lines_that_only_lf_ends_are_not_left_waiting(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postern_smtp.conversation._BARE_NEWLINE_GRACE_S", 0.1)
    wire = await gate.session()
    await wire.send(b"NOOP\n")
    assert (await wire.reply()).startswith("501 5.5.2")
    assert await wire.is_closed()


async def test_message_data_of_all_sessions_together_is_bounded(gate: GateUnderTest) -> None:
    gate.listener.memory.limit_bytes = 300_000
    holder, other = await gate.session(), await gate.session()
    for wire in (holder, other):
        await wire.transaction()
        await wire.expect("DATA", "354")
    await holder.send((b"y" * 70 + b"\r\n") * 4000)
    await gate.wait_for(lambda: gate.listener.memory.used_bytes > 280_000)
    await other.send((b"y" * 70 + b"\r\n") * 20_000 + b".\r\n")
    assert (await other.reply()).startswith("452 4.3.1")
    await other.expect("MAIL FROM:<x@sender.example>", "452 4.3.1")  # before its data: there is no room for any
    await holder.send(b".\r\n")
    assert (await holder.reply()).startswith("250")
    assert (await other.message(MESSAGE)).startswith("250")
    assert gate.listener.memory.used_bytes == 0


async def _lines(wire: Wire) -> AsyncIterator[str]:
    while line := await wire.reply():
        yield line
