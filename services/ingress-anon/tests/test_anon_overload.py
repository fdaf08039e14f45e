"""A broker that is slow or full: clients are turned away before they send a message, and served again when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from fixtures.broker import TEST_LIMITS
from fixtures.dns_server import DnsServer, Misbehaviour
from fixtures.gates import GateUnderTest
from postern_core.notices import NoticeKind
from postern_core.policy import ListenerPolicy, MailAuthentication
from postern_smtp.overload import Sign

HangingBroker = Callable[[], AbstractAsyncContextManager[None]]
MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
LARGE = b"Subject: large\r\n\r\n" + (b"x" * 70 + b"\r\n") * 6000


async def test_while_the_broker_hangs_clients_are_turned_away_before_data_and_served_afterwards(
    gate: GateUnderTest, hanging_broker: HangingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postern_smtp.overload.SLOW_S", 0.2)
    loop = asyncio.get_running_loop()
    sending, halfway, idle = await gate.session(), await gate.session(), await gate.session()
    for wire in (sending, halfway):
        await wire.transaction()
    await sending.expect("DATA", "354")
    async with hanging_broker():
        await sending.send(MESSAGE + b".\r\n")
        await gate.wait_for(lambda: gate.listener.overload.standing(loop.time()) is Sign.SLOW)
        await halfway.expect("DATA", "451 4.3.2")
        await idle.expect("MAIL FROM:<x@sender.example>", "451 4.3.2")
        newcomer = await gate.connect()
        assert await newcomer.reply() == "421 4.3.2 too busy, try again later"
        assert await newcomer.is_closed()
    monkeypatch.undo()
    assert (await sending.reply()).startswith("250 2.0.0")
    assert (await gate.served(MESSAGE)).startswith("250 2.0.0")
    assert (await gate.session()).writer is not None  # with the first that was stored in time, everybody
    assert (await idle.message(MESSAGE)).startswith("250 2.0.0")
    told = await gate.notice(NoticeKind.OVERLOADED)
    assert told.about == Sign.SLOW.value


async def test_a_full_intake_turns_clients_away_before_data_until_there_is_room(
    gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postern_smtp.overload.FIRST_PAUSE_S", 3.0)  # so that this test is within it
    await gate.broker.provision(replace(TEST_LIMITS, intake_bytes=1024 * 1024))
    wire, idle = await gate.session(), await gate.session()
    while (answer := await wire.message(LARGE)).startswith("250 2.0.0"):
        pass
    assert answer.startswith("452 4.3.1")
    await idle.expect("MAIL FROM:<x@sender.example>", "452 4.3.1")
    assert await (await gate.connect()).reply() == "421 4.3.2 too busy, try again later"
    await gate.broker.provision()
    assert (await gate.served(LARGE)).startswith("250 2.0.0")
    assert (await idle.message(LARGE)).startswith("250 2.0.0")
    told = await gate.notice(NoticeKind.OVERLOADED, times=2)
    assert told.about == Sign.FULL.value


async def test_a_senders_dns_that_is_slow_is_no_slow_broker(
    dns_gate: GateUnderTest, dns_server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: whoever sent from a domain whose DNS did not answer had the gate turn everybody away."""
    monkeypatch.setattr("postern_smtp.overload.SLOW_S", 0.0)
    monkeypatch.setattr("postern_smtp.mail_authentication.evaluation.EARLY_SPF_S", 0.05)
    dns_server.misbehaves["sender.example"] = Misbehaviour.SILENT
    await dns_gate.policy(listener=ListenerPolicy(mail_authentication=MailAuthentication(enabled=True)))
    sending, other = await dns_gate.session(), await dns_gate.session()
    await sending.transaction()
    await sending.expect("DATA", "354")
    await sending.send(MESSAGE + b".\r\n")
    await dns_gate.wait_for(lambda: dns_gate.listener.memory.used_bytes == len(MESSAGE))  # it is examined
    assert dns_gate.listener.overload.standing(asyncio.get_running_loop().time()) is None
    await other.expect("MAIL FROM:<>", "250")
    assert (await (await dns_gate.connect()).reply()).startswith("220 ")


async def test_connections_turned_away_for_their_number_are_told_of(gate: GateUnderTest) -> None:
    await gate.policy(max_connections=1)
    await gate.session()
    assert (await (await gate.connect()).reply()).startswith("421 4.3.2 too many connections")
    assert (await gate.notice(NoticeKind.OVERLOADED)).about == "connections"
