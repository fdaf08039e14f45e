"""The anonymous gate when something around it is missing: policy, broker, room; and its own end."""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import msgspec
import pytest

from fixtures.broker import TEST_LIMITS, Broker
from fixtures.gates import GateUnderTest
from postern_core.events import EventBatch
from postern_core.policy import RelayDomain
from postern_smtp.server import GateConnection

HangingBroker = Callable[[], AbstractAsyncContextManager[None]]
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


async def test_without_a_policy_mail_is_deferred_until_there_is_one(bare_gate: GateUnderTest) -> None:
    wire = await bare_gate.session()
    await wire.expect("MAIL FROM:<x@sender.example>", "451 4.3.5")
    await bare_gate.policy()
    assert (await wire.message(MESSAGE)).startswith("250")


async def test_a_running_session_sees_a_new_policy_at_its_next_transaction(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.transaction()
    await gate.policy(domains=(RelayDomain(pattern="other.example"),))
    await wire.expect("RCPT TO:<b@relay.example>", "250")
    await wire.expect("RSET", "250")
    await wire.expect("MAIL FROM:<>", "250")
    await wire.expect("RCPT TO:<b@relay.example>", "550 5.7.1")
    await wire.expect("RCPT TO:<b@other.example>", "250")


async def test_without_a_broker_mail_is_deferred_and_taken_when_it_is_back(gate: GateUnderTest) -> None:
    wire, halfway = await gate.session(), await gate.session()
    await halfway.transaction()
    await halfway.expect("DATA", "354")
    gate.broker.stop(signal.SIGKILL)
    await gate.wait_for(lambda: gate.listener.unavailable() is not None)
    await wire.expect("MAIL FROM:<x@sender.example>", "451 4.3.0")
    await halfway.send(MESSAGE + b".\r\n")
    assert (await halfway.reply()).startswith("451 4.3.0")
    await asyncio.to_thread(gate.broker.restart)
    await gate.wait_for(lambda: gate.listener.unavailable() is None)
    assert (await wire.message(MESSAGE)).startswith("250")
    assert (await halfway.message(MESSAGE)).startswith("250")
    assert await gate.intake_count() == 2


async def test_a_full_intake_is_a_452_until_there_is_room(gate: GateUnderTest) -> None:
    await gate.broker.provision(replace(TEST_LIMITS, intake_bytes=1024 * 1024))
    wire = await gate.session()
    large = b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 6000
    taken = 0
    while (answer := await wire.message(large)).startswith("250 2.0.0"):
        taken += 1
    assert answer.startswith("452 4.3.1")
    assert 0 < taken < 5
    assert await gate.intake_count() == taken
    await gate.broker.provision()
    assert (await gate.served(large)).startswith("250 2.0.0")


async def test_a_broker_that_hangs_is_a_451_within_the_cap(gate: GateUnderTest, hanging_broker: HangingBroker) -> None:
    gate.listener._acceptance._intake.cap_s = 0.5
    wire = await gate.session()
    await wire.transaction()
    await wire.expect("DATA", "354")
    async with hanging_broker():
        await wire.send(MESSAGE + b".\r\n")
        assert (await wire.reply()).startswith("451 4.3.0")


async def test_what_was_answered_before_a_message_is_stored_does_not_wait_for_it(
    gate: GateUnderTest, hanging_broker: HangingBroker
) -> None:
    wire = await gate.session()
    async with hanging_broker():
        await wire.send(b"MAIL FROM:<>\r\nRCPT TO:<a@relay.example>\r\nDATA\r\n" + MESSAGE + b".\r\n")
        assert [(await wire.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
    assert (await wire.reply()).startswith("250 2.0.0")


async def test_an_accepted_message_leaves_its_event(gate: GateUnderTest, broker: Broker) -> None:
    reply = await (await gate.session()).message(MESSAGE)
    queue_id = reply.rpartition(" ")[2]
    provisioner = await broker.connect("provisioner")
    async with asyncio.timeout(20):
        while not (await provisioner.stream_state("EVENTS"))["messages"]:
            await asyncio.sleep(0.02)
    found = await provisioner.api("STREAM.MSG.GET.EVENTS", {"seq": 1})
    await provisioner.close()
    event = msgspec.json.decode(base64.b64decode(found["message"]["data"]), type=EventBatch).events[0]
    assert (event.id, event.kind, event.fields["to"]) == (queue_id, "accepted", "a@relay.example")


async def test_a_fault_of_ours_is_451_and_tells_the_client_nothing(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await gate.session()

    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("postern_smtp.dialogue.Dialogue._mail", broken)
    assert await wire.say("MAIL FROM:<>") == "451 4.3.0 local error, try again later"
    monkeypatch.undo()
    assert (await wire.message(MESSAGE)).startswith("250")


async def test_a_client_that_leaves_while_its_message_is_stored_takes_nothing_with_it(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.transaction()
    await wire.expect("DATA", "354")
    await wire.send(MESSAGE + b".\r\n")
    wire.writer.transport.abort()
    async with asyncio.timeout(20):
        while await gate.intake_count() == 0 or gate.listener.connections:
            await asyncio.sleep(0.01)
    assert await gate.intake_count() == 1


async def test_draining_finishes_messages_and_sends_everybody_home(gate: GateUnderTest) -> None:
    idle, asking, sending = await gate.session(), await gate.session(), await gate.session()
    await sending.transaction()
    await sending.expect("DATA", "354")
    await sending.send(MESSAGE)
    await gate.wait_for(lambda: any(isinstance(c, GateConnection) and c.is_busy for c in gate.listener._connections))
    address = gate.listener.addresses[0]
    gate.stop.set()
    await gate.wait_for(lambda: gate.listener.is_draining)
    await asking.expect("NOOP", "421 4.3.2")
    assert (await idle.reply()).startswith("421 4.3.2")
    await sending.send(b".\r\n")
    assert (await sending.reply()).startswith("250 2.0.0")
    assert (await sending.reply()).startswith("421 4.3.2")
    for wire in (idle, asking, sending):
        assert await wire.is_closed()
    with pytest.raises(OSError):
        await asyncio.open_connection(address.host, address.port)
