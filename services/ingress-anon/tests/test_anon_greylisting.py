"""Greylisting over real sockets and a real broker: one gate, two replicas, one that comes later, and a restart of all."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fixtures.broker import Broker
from fixtures.gates import GateUnderTest, gate_under_test
from fixtures.smart_host import SmartHost
from postern_core.envelope import Gate
from postern_core.policy import CalloutRoute, ListenerGreylisting, ListenerPolicy, NextHop, Recipients, RelayDomain
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings

GREYLISTED = "451 4.7.1 greylisted"
SHORT = ListenerPolicy(greylisting=ListenerGreylisting(enabled=True, delay_s=0.05, whitelist_after=None))
LONG = ListenerPolicy(greylisting=ListenerGreylisting(enabled=True, delay_s=3600, retry_window_s=7200))


@asynccontextmanager
async def replica(broker: Broker, state_dir: Path | None = None) -> AsyncIterator[GateUnderTest]:
    changed = {"listen": "127.0.0.1:0", "drain_s": 6, "state_dir": state_dir}
    settings = Settings(**broker.settings("ingress-anon").model_dump() | changed)
    async with gate_under_test(broker, Gate.ANON, lambda bus: gate_of(settings, bus)) as gate:
        yield gate


@pytest.fixture
async def other(gate: GateUnderTest) -> AsyncIterator[GateUnderTest]:
    """A second replica."""
    async with replica(gate.broker) as second:
        yield second


async def in_force(gate: GateUnderTest, listener: ListenerPolicy, *others: GateUnderTest) -> None:
    await gate.policy(listener=listener)
    for each in others:
        await each.wait_for(lambda each=each: (rules := each.listener.newest_rules()) is not None and rules.listener == listener)  # type: ignore[misc]


async def reply_to(gate: GateUnderTest, recipient: str = "ann@relay.example", source: str = "") -> str:
    wire = await (await gate.connect(source=source)).greeted()
    await wire.expect("MAIL FROM:<x@sender.example>", "250")
    reply = await wire.say(f"RCPT TO:<{recipient}>")
    await wire.expect("QUIT", "221")
    return reply


async def until_taken(gate: GateUnderTest) -> None:
    """Comes again as a mail server does, until it is taken."""
    async with asyncio.timeout(20):
        while not (reply := await reply_to(gate)).startswith("250"):
            assert reply.startswith(GREYLISTED)


async def test_it_is_off_as_it_comes(gate: GateUnderTest) -> None:
    assert (await reply_to(gate)).startswith("250")
    rules = gate.listener.newest_rules()
    assert rules is not None
    assert rules.checks.recipient == ()


async def test_a_stranger_is_asked_to_come_again(gate: GateUnderTest) -> None:
    await in_force(gate, LONG)
    wire = await gate.session()
    await wire.expect("MAIL FROM:<x@sender.example>", "250")
    for _ in range(20):  # no error of the client's
        await wire.expect("RCPT TO:<ann@relay.example>", GREYLISTED)
    await in_force(gate, SHORT)
    assert (await reply_to(gate, "bob@relay.example")).startswith(GREYLISTED)
    await until_taken(gate)
    assert (await reply_to(gate, source="127.0.0.77")).startswith("250")  # of the same network
    assert (await reply_to(gate, source="127.0.1.1")).startswith(GREYLISTED)


async def test_exempt_networks_are_never_asked_to(gate: GateUnderTest) -> None:
    exempt = ListenerGreylisting(enabled=True, exempt_networks=("127.0.0.0/25",))
    await in_force(gate, ListenerPolicy(greylisting=exempt))
    assert (await reply_to(gate)).startswith("250")
    assert (await reply_to(gate, source="127.0.0.200")).startswith(GREYLISTED)


async def test_a_stranger_costs_no_callout(gate: GateUnderTest, smart_host: SmartHost) -> None:
    route = CalloutRoute(name="main", next_hops=(NextHop(host=smart_host.host, port=smart_host.port),))
    domain = RelayDomain(pattern="relay.example", recipients=Recipients.CALLOUT)
    await gate.policy((domain,), listener=LONG, routes=(route,))
    assert (await reply_to(gate)).startswith(GREYLISTED)
    assert smart_host.connections == 0


async def test_what_one_replica_saw_the_other_knows(gate: GateUnderTest, other: GateUnderTest) -> None:
    await in_force(gate, LONG, other)
    assert (await reply_to(gate)).startswith(GREYLISTED)
    await known_by(other, 1)
    await in_force(gate, SHORT, other)
    await until_taken(other)
    await known_by(gate, 1, came_again=True)
    await in_force(gate, LONG, other)  # only who came again before is taken now
    assert (await reply_to(gate)).startswith("250")


async def test_a_replica_that_comes_later_is_told(gate: GateUnderTest, other: GateUnderTest) -> None:
    await in_force(gate, SHORT, other)
    await until_taken(gate)
    await known_by(other, 1, came_again=True)  # it was told, and will not be again unless somebody asks
    await in_force(gate, LONG, other)
    async with replica(gate.broker) as late:
        await late.wait_for(lambda: late.listener.newest_rules() is not None)
        await known_by(late, 1, came_again=True)
        assert (await reply_to(late)).startswith("250")


async def test_what_was_seen_while_the_bus_was_away_is_told_when_it_is_back(gate: GateUnderTest, other: GateUnderTest) -> None:
    await in_force(gate, SHORT, other)
    wire = await gate.session()
    await wire.expect("MAIL FROM:<x@sender.example>", "250")
    gate.broker.stop(signal.SIGKILL)
    for each in (gate, other):
        await each.wait_for(lambda each=each: each.listener.unavailable() is not None)  # type: ignore[misc]
    await wire.expect("RCPT TO:<ann@relay.example>", GREYLISTED)
    await asyncio.to_thread(gate.broker.restart)
    await known_by(other, 1)


async def test_a_restart_of_all_forgets_nobody(broker: Broker, tmp_path: Path) -> None:
    async with replica(broker, tmp_path) as before:
        await in_force(before, SHORT)
        await until_taken(before)
        await in_force(before, LONG)
    async with replica(broker, tmp_path) as after:
        await after.wait_for(lambda: after.listener.newest_rules() is not None)
        assert (await reply_to(after)).startswith("250")
        assert (await reply_to(after, "bob@relay.example")).startswith(GREYLISTED)


@pytest.mark.parametrize("damage", [b"", b"\x00\xff", b"\x92\xcb"])
async def test_a_damaged_file_is_no_file(broker: Broker, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "greylist.bin").write_bytes(damage)
    async with replica(broker, tmp_path) as gate:
        await in_force(gate, SHORT)
        await until_taken(gate)
    assert (tmp_path / "greylist.bin").stat().st_size > len(damage)


async def known_by(gate: GateUnderTest, number: int, *, came_again: bool = False) -> None:
    """Returns when the replica knows so many triplets."""

    def knows() -> bool:
        rules = gate.listener.newest_rules()
        assert rules is not None
        greylist = rules.checks.recipient[0].greylist  # type: ignore[attr-defined]
        return sum(each.came_again == came_again for news in greylist.everything(0.0) for each in news.triplets) == number

    await gate.wait_for(knows)
