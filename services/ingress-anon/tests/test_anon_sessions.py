"""Sessions of a running gate: listed and ended over the bus, paused and drained by policy, and what the session log is told."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from typing import Any

import msgspec
import pytest

from fixtures.broker import Broker
from fixtures.gates import GateUnderTest, Wire
from postern_core.bus.connection import unavailable
from postern_core.contract import decode
from postern_core.control import ServiceStatus
from postern_core.ids import SessionId, connected_at
from postern_core.policy import GateState, ListenerPolicy, ListenerState, SessionLogging, SessionLogLevel
from postern_core.session_log import SessionBatch, SessionRecord
from postern_core.sessions import GateVerb, SessionPage, SessionQuery, SessionSelection, SessionsEnded, SessionState

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
PAUSED = ListenerPolicy(state=ListenerState(state=GateState.PAUSED))
DRAINED = ListenerPolicy(state=ListenerState(state=GateState.DRAINED))


async def ask(gate: GateUnderTest, verb: GateVerb | str, request: msgspec.Struct | dict[str, Any]) -> bytes:
    return await gate.api.request(f"control.ingress-anon.{verb}.test", msgspec.json.encode(request), timeout_s=5)


async def listed(gate: GateUnderTest, **query: Any) -> SessionPage:
    return msgspec.json.decode(await ask(gate, GateVerb.LIST, SessionQuery(**query)), type=SessionPage)


async def end(gate: GateUnderTest, **chosen: Any) -> int:
    return msgspec.json.decode(await ask(gate, GateVerb.END, SessionSelection(**chosen)), type=SessionsEnded).ended


async def in_data(gate: GateUnderTest) -> Wire:
    """A session whose message has begun."""
    wire = await gate.session()
    await wire.transaction()
    await wire.expect("DATA", "354")
    await wire.send(MESSAGE)
    return wire


async def test_sessions_are_listed_with_what_they_have_done(gate: GateUnderTest) -> None:
    sent = await gate.session()
    assert (await sent.message(MESSAGE)).startswith("250")
    silent, receiving = await gate.connect(), await in_data(gate)
    assert (await silent.reply()).startswith("220")
    await receiving.send(b"more\r\n")
    await gate.wait_for(lambda: any(c.is_busy for c in gate.listener.open_connections))
    page = await listed(gate)
    assert page.total == 3
    # by id, which says when they began, to the millisecond
    assert [row.id for row in page.rows] == sorted({row.id for row in page.rows})
    states = (SessionState.READY, SessionState.START, SessionState.DATA)
    first, second, third = (next(row for row in page.rows if row.state is state) for state in states)
    address = gate.listener.addresses[0]
    assert (first.client, first.host, first.server, first.tls, first.user) == (
        "127.0.0.1",
        "client.example",
        str(address),
        "",
        "",
    )
    assert (first.messages, first.recipients, first.commands, first.errors) == (1, 1, 4, 0)
    assert first.received_bytes > len(MESSAGE)
    assert first.sent_bytes > second.sent_bytes > 0
    assert first.age_s >= third.age_s >= third.idle_s >= 0
    assert connected_at(SessionId(first.id)) <= connected_at(SessionId(second.id))


async def test_a_list_comes_in_pages_and_of_one_client_or_network(gate: GateUnderTest) -> None:
    for _ in range(3):
        await gate.session()
    ids = [row.id for row in (await listed(gate)).rows]
    first = await listed(gate, limit=2)
    assert [row.id for row in first.rows] == ids[:2]
    assert first.total == 3
    assert [row.id for row in (await listed(gate, limit=2, after=ids[1])).rows] == ids[2:]
    assert (await listed(gate, client="127.0.0.0/8")).total == 3
    assert (await listed(gate, client="192.0.2.0/24")).total == 0
    assert json.loads(await ask(gate, GateVerb.LIST, {"client": "nonsense"}))["error"] == "control"
    assert json.loads(await ask(gate, "sessions-count", {}))["error"] == "control"


async def test_one_session_is_ended_and_the_others_go_on(gate: GateUnderTest) -> None:
    first, second = await gate.session("one.example"), await gate.session("two.example")
    wanted = next(row.id for row in (await listed(gate)).rows if row.host == "one.example")
    assert await end(gate, id=wanted) == 1
    assert await first.reply() == "421 4.3.2 session ended, connect again"
    assert await first.is_closed()
    assert (await second.message(MESSAGE)).startswith("250")
    assert await end(gate, id=wanted) == 0


async def test_a_message_that_is_being_stored_gets_its_answer_before_its_session_ends(
    gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, go_on = await in_data(gate), asyncio.Event()
    accept = gate.listener._acceptance.accept

    async def slowly(*arguments: Any, **more: Any) -> Any:
        await go_on.wait()
        return await accept(*arguments, **more)

    monkeypatch.setattr(gate.listener._acceptance, "accept", slowly)
    await wire.send(b".\r\n")
    await gate.wait_for(lambda: any(c.is_storing for c in gate.listener.open_connections))
    assert (await listed(gate)).rows[0].state is SessionState.STORING
    assert await end(gate) == 1
    go_on.set()
    assert (await wire.reply()).startswith("250 2.0.0")
    assert await wire.reply() == "421 4.3.2 session ended, connect again"
    assert await gate.intake_count() == 1


async def test_all_sessions_of_a_gate_are_ended(gate: GateUnderTest) -> None:
    wires = [await gate.session() for _ in range(5)]
    assert await end(gate, client="192.0.2.7/32") == 0
    assert await end(gate, client="127.0.0.1/32") == 5
    for wire in wires:
        assert (await wire.reply()).startswith("421 4.3.2")
    await gate.wait_for(lambda: gate.listener.connections == 0)


async def test_a_paused_gate_takes_nobody_and_lets_sessions_go_on(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await gate.policy(listener=PAUSED)
    newcomer = await gate.connect()
    assert await newcomer.reply() == "421 4.3.2 not taking mail now, try again later"
    assert await newcomer.is_closed()
    assert (await wire.message(MESSAGE)).startswith("250")
    await gate.policy()
    assert (await (await gate.session()).message(MESSAGE)).startswith("250")


async def test_a_drained_gate_sends_each_session_home_after_its_message(gate: GateUnderTest) -> None:
    idle, asking, sending = await gate.session(), await gate.session(), await in_data(gate)
    await asking.transaction()
    await gate.wait_for(lambda: any(c.is_busy for c in gate.listener.open_connections))
    await gate.policy(listener=DRAINED)
    assert await idle.reply() == "421 4.3.2 not taking mail now, try again later"
    await asking.expect("RCPT TO:<b@relay.example>", "250")  # it has a transaction, and may finish it
    await asking.expect("DATA", "354")
    for wire in (asking, sending):
        await wire.send(b"\r\n.\r\n")
        assert (await wire.reply()).startswith("250 2.0.0")
        assert await wire.reply() == "421 4.3.2 not taking mail now, try again later"
        assert await wire.is_closed()
    assert (await (await gate.connect()).reply()).startswith("421 4.3.2")
    assert await gate.intake_count() == 2


async def test_a_drained_session_that_gives_its_transaction_up_goes_home(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.transaction()
    await gate.policy(listener=DRAINED)
    await wire.expect("RSET", "250")
    await wire.expect("NOOP", "421 4.3.2")


async def test_a_paused_gate_is_ready_and_says_that_it_is_paused(gate: GateUnderTest) -> None:
    async def status() -> ServiceStatus:
        value = await gate.api.kv_get("STATUS", "ingress-anon.test")
        assert value is not None
        return msgspec.json.decode(value, type=ServiceStatus)

    await gate.policy(listener=PAUSED)
    async with asyncio.timeout(10):
        while (await status()).detail != "paused":
            await asyncio.sleep(0.01)
    assert (await status()).ready


async def told(gate: GateUnderTest, verb: str) -> list[SessionRecord]:
    """The session log as EVENTS has it, once a record of this verb is there."""
    provisioner = await gate.broker.connect("provisioner")
    try:
        async with asyncio.timeout(20):
            while True:
                records: list[SessionRecord] = []
                last = (await provisioner.stream_state("EVENTS"))["last_seq"]
                for sequence in range(1, last + 1):
                    found = (await provisioner.api("STREAM.MSG.GET.EVENTS", {"seq": sequence}))["message"]
                    if found["subject"] == "event.ingress-anon.session":
                        batch = decode(base64.b64decode(found["data"]), SessionBatch)
                        assert (batch.gate, batch.instance) == (gate.gate, "test")
                        records += batch.records
                if any(record.verb == verb for record in records):
                    return records
                await asyncio.sleep(0.05)
    finally:
        await provisioner.close()


async def test_a_session_is_one_record_by_default(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.message(MESSAGE)
    await wire.expect("NONSENSE", "500")
    await wire.expect("QUIT", "221")
    (record,) = await told(gate, "SESSION")
    assert (record.verb, record.n, record.argument) == ("SESSION", 0, "closing the connection")
    assert (record.client, record.server, record.host) == ("127.0.0.1", str(gate.listener.addresses[0]), "client.example")
    assert (record.commands, record.errors, record.messages, record.recipients) == (6, 1, 1, 1)
    assert record.received_bytes > len(MESSAGE)
    assert record.sent_bytes > 0


async def test_each_command_is_a_record_where_the_switch_says_so(gate: GateUnderTest) -> None:
    await gate.policy(listener=ListenerPolicy(logging=SessionLogging(level=SessionLogLevel.COMMANDS)))
    wire = await gate.session()
    reply = await wire.message(MESSAGE)
    await wire.expect("AUTH PLAIN c2VjcmV0", "502")
    await wire.expect("c2VjcmV0", "500")
    await wire.expect("QUIT", "221")
    records = await told(gate, "SESSION")
    assert [(each.n, each.verb, each.argument, each.code) for each in records] == [
        (1, "EHLO", "client.example", 250),
        (2, "MAIL", "FROM:<x@sender.example>", 250),
        (3, "RCPT", "TO:<a@relay.example>", 250),
        (4, "DATA", reply.rpartition(" ")[2], 250),
        (5, "AUTH", "PLAIN", 502),
        (6, "UNKNOWN", "", 500),
        (7, "QUIT", "", 221),
        (0, "SESSION", "closing the connection", 0),
    ]
    assert records[3].received_bytes == len(b"DATA\r\n") + len(MESSAGE)
    assert len({each.session for each in records}) == 1


async def test_a_message_whose_client_has_gone_is_in_the_log_too(gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    await gate.policy(listener=ListenerPolicy(logging=SessionLogging(level=SessionLogLevel.COMMANDS)))
    wire, go_on = await in_data(gate), asyncio.Event()
    accept = gate.listener._acceptance.accept

    async def slowly(*arguments: Any, **more: Any) -> Any:
        await go_on.wait()
        return await accept(*arguments, **more)

    monkeypatch.setattr(gate.listener._acceptance, "accept", slowly)
    await wire.send(b".\r\n")
    await gate.wait_for(lambda: any(c.is_storing for c in gate.listener.open_connections))
    # a reset: after a FIN alone it could still hear the answer
    wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.writer.transport.abort()
    await gate.wait_for(lambda: gate.listener.connections == 0)
    go_on.set()
    records = {each.verb: each for each in await told(gate, "DATA")}
    assert records["DATA"].code == 250
    assert await gate.intake_count() == 1


async def test_nothing_is_told_where_the_switch_is_off_and_of_who_is_turned_away(gate: GateUnderTest) -> None:
    await gate.policy(listener=ListenerPolicy(logging=SessionLogging(level=SessionLogLevel.OFF)))
    await (await gate.session()).expect("QUIT", "221")
    await gate.policy(listener=PAUSED)
    assert (await (await gate.connect()).reply()).startswith("421")
    await gate.policy()
    await (await gate.session()).expect("QUIT", "221")
    assert len(await told(gate, "SESSION")) == 1


async def test_a_gate_that_cannot_tell_drops_and_counts_and_takes_mail_all_the_same(
    broker: Broker, gate: GateUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postern_core.bus.session_log_sink._MOST", 2)
    tell = gate.listener.tell_session
    sink: Any = tell.__self__  # type: ignore[attr-defined]
    publish = sink._bus.publish

    async def refused(stream: str, *arguments: Any, **more: Any) -> Any:
        if stream == "EVENTS":
            raise unavailable("not now")
        return await publish(stream, *arguments, **more)

    monkeypatch.setattr(sink._bus, "publish", refused)
    for _ in range(5):
        wire = await gate.session()
        assert (await wire.message(MESSAGE)).startswith("250")
        await wire.expect("QUIT", "221")
    await gate.wait_for(lambda: gate.listener.connections == 0)
    assert sink.dropped == 3
    monkeypatch.setattr(sink._bus, "publish", publish)
    assert len(await told(gate, "SESSION")) == 2
