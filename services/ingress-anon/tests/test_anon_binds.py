"""Where the anonymous gate listens, changed while it runs: new ports open, old ones close, sessions go on, and it never falls silent."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.broker import Broker
from fixtures.gates import RELAY_DOMAINS, GateUnderTest, Wire
from fixtures.ports import free_port
from fixtures.processes import service
from fixtures.workers import MESSAGE, Workers
from postern_core.bus.connection import Bus
from postern_core.policy import (
    Bind,
    GateLimits,
    GatePolicy,
    GateState,
    ListenerBinds,
    ListenerPolicy,
    ListenerState,
    encode_section,
)

LOOPBACK = "127.0.0.1"


def at(*ports: int | Bind, state: GateState = GateState.OPEN) -> ListenerPolicy:
    binds = (port if isinstance(port, Bind) else Bind(address=LOOPBACK, port=port) for port in ports)
    return ListenerPolicy(binds=ListenerBinds(binds=tuple(binds)), state=ListenerState(state=state))


async def greeted(port: int, host: str = LOOPBACK) -> Wire:
    return await Wire(*await asyncio.open_connection(host, port)).greeted()


async def is_refused(port: int, host: str = LOOPBACK) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was closed at that moment
        return False
    writer.close()
    return False


@contextmanager
def taken() -> Iterator[tuple[int, socket.socket]]:
    """A port at which somebody else listens."""
    with socket.create_server((LOOPBACK, 0)) as other:
        yield other.getsockname()[1], other


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries again at once, instead of in some seconds."""
    monkeypatch.setattr("postern_smtp.ports._RETRY_S", 0.05)


async def moved(gate: GateUnderTest, *ports: int | Bind) -> None:
    """Put these in force; returns when the gate listens there, and nowhere else."""
    await gate.policy(listener=at(*ports))
    wanted = [port if isinstance(port, int) else port.port for port in ports]
    await gate.wait_for(lambda: [address.port for address in gate.listener.addresses] == wanted)


async def test_it_moves_to_other_ports_and_sessions_at_the_old_one_go_on(gate: GateUnderTest) -> None:
    old, new, second = gate.listener.addresses[0].port, free_port(), free_port()
    wire = await gate.session()
    await wire.transaction()
    await wire.expect("DATA", "354")
    await moved(gate, new, second)
    assert await is_refused(old)
    for port in (new, second):
        other = await greeted(port)
        assert (await other.message(MESSAGE)).startswith("250")
    await wire.send(MESSAGE + b".\r\n")
    assert (await wire.reply()).startswith("250")
    assert (await wire.message(MESSAGE)).startswith("250")
    told = await gate.status(lambda status: status.listens == (f"{LOOPBACK}:{new}", f"{LOOPBACK}:{second}"))
    assert told.unbound == ()
    await gate.policy(listener=at())
    await gate.wait_for(lambda: len(gate.listener.addresses) == 1 and gate.listener.addresses[0].port not in (new, second))
    assert (await gate.served(MESSAGE)).startswith("250")


async def test_a_port_that_stays_is_not_touched(gate: GateUnderTest) -> None:
    stays = free_port()
    await moved(gate, stays)
    listening = next(opened.listening for opened in gate.listener.ports._open.values())
    inode = os.fstat(listening.fileno()).st_ino
    for _ in range(3):
        await moved(gate, free_port(), stays)
        await moved(gate, stays)
    assert os.fstat(listening.fileno()).st_ino == inode
    assert next(opened.listening for opened in gate.listener.ports._open.values()) is listening


async def test_one_address_becomes_all_and_back_without_a_moment_of_silence(gate: GateUnderTest) -> None:
    port, changing, refused, met = free_port(), True, 0, 0
    await moved(gate, port)

    async def knock() -> None:
        nonlocal refused, met
        while changing:
            try:
                _, writer = await asyncio.open_connection(LOOPBACK, port)
            except ConnectionRefusedError:
                refused += 1
            except ConnectionResetError:
                pass  # it waited to be accepted at the socket that went
            else:
                writer.close()
                met += 1
            await asyncio.sleep(0)

    knocking = asyncio.ensure_future(knock())
    for address in ("0.0.0.0", LOOPBACK, "*", LOOPBACK):
        await gate.policy(listener=at(Bind(address=address, port=port)))
        wanted = {"*": {"0.0.0.0", "::"}}.get(address, {address})
        await gate.wait_for(lambda wanted=wanted: {each.host for each in gate.listener.addresses} == wanted)
    changing = False
    await knocking
    assert (refused, met > 0) == (0, True)
    # and it is the gate's own: nobody else comes to listen there
    with pytest.raises(OSError, match="in use"):
        socket.create_server((LOOPBACK, port))


async def test_a_star_is_ipv4_and_ipv6(gate: GateUnderTest) -> None:
    port = free_port()
    await gate.policy(listener=at(Bind(address="*", port=port)))
    await gate.wait_for(lambda: len(gate.listener.addresses) == 2)
    for host in (LOOPBACK, "::1"):
        assert (await (await greeted(port, host)).message(MESSAGE)).startswith("250")


@pytest.mark.usefixtures("impatient")
async def test_what_cannot_be_opened_is_told_and_opened_when_it_can_be(gate: GateUnderTest) -> None:
    good = free_port()
    with taken() as (port, other):
        await gate.policy(listener=at(good, port, Bind(address="192.0.2.1", port=good)))
        status = await gate.status(lambda status: len(status.unbound) == 2)
        assert {each.address: each.problem for each in status.unbound} == {
            f"{LOOPBACK}:{port}": "Address already in use",
            f"192.0.2.1:{good}": "Cannot assign requested address",
        }
        assert (status.ready, status.listens) == (True, (f"{LOOPBACK}:{good}",))
        assert (await (await greeted(good)).message(MESSAGE)).startswith("250")
        other.close()
        await gate.status(lambda status: status.listens == (f"{LOOPBACK}:{good}", f"{LOOPBACK}:{port}"))
        assert (await (await greeted(port)).message(MESSAGE)).startswith("250")


@pytest.mark.usefixtures("impatient")
async def test_the_old_ports_stay_as_long_as_none_of_the_new_can_be_opened(gate: GateUnderTest) -> None:
    old = gate.listener.addresses[0].port
    with taken() as (port, other):
        await gate.policy(listener=at(port))
        status = await gate.status(lambda status: bool(status.unbound))
        assert status.listens == (f"{LOOPBACK}:{old}",)
        assert (await (await greeted(old)).message(MESSAGE)).startswith("250")
        other.close()
        await gate.status(lambda status: status.listens == (f"{LOOPBACK}:{port}",) and not status.unbound)
    assert await is_refused(old)


async def test_a_new_port_of_a_paused_gate_says_so_and_the_end_closes_it(gate: GateUnderTest) -> None:
    port = free_port()
    await gate.policy(listener=at(port, state=GateState.PAUSED))
    await gate.wait_for(lambda: [address.port for address in gate.listener.addresses] == [port])
    wire = Wire(*await asyncio.open_connection(LOOPBACK, port))
    assert (await wire.reply()).startswith("421 4.3.2 not taking mail now")
    gate.stop.set()
    async with asyncio.timeout(20):
        while not await is_refused(port):
            await asyncio.sleep(0.01)


async def test_tls_from_the_first_octet_is_refused_here(gate: GateUnderTest) -> None:
    assert "authenticated gate" in await gate.refused_policy(at(Bind(address=LOOPBACK, port=free_port(), tls=True)))


async def policy(api: Bus, revision: int, listener: ListenerPolicy) -> None:
    limits = GateLimits(max_connections_per_client=None)
    section = GatePolicy(
        revision=revision, hostname="mx.example", relay_domains=RELAY_DOMAINS, anon=limits, anon_listener=listener
    )
    await api.kv_put("POLICY", "gates", encode_section(section))


async def test_a_gate_starts_where_its_policy_says_though_the_port_of_its_environment_is_taken(
    broker: Broker, tmp_path: Path
) -> None:
    api, port = await broker.connect("api"), free_port()
    await policy(api, 1, at(port))
    with taken() as (by_environment, _):
        async with service(broker, "ingress-anon", tmp_path, POSTERN_LISTEN=f"{LOOPBACK}:{by_environment}"):
            assert (await (await greeted(port)).message(MESSAGE)).startswith("250")
    await api.close()


async def test_a_gate_starts_where_its_environment_says_when_nothing_else_can_be_opened(broker: Broker, tmp_path: Path) -> None:
    api, port = await broker.connect("api"), free_port()
    with taken() as (by_policy, _):
        await policy(api, 1, at(by_policy))
        async with service(broker, "ingress-anon", tmp_path, POSTERN_LISTEN=f"{LOOPBACK}:{port}"):
            assert (await (await greeted(port)).message(MESSAGE)).startswith("250")
    await api.close()


async def test_every_worker_moves_and_nobody_is_refused_at_a_port_that_stays(broker: Broker, tmp_path: Path) -> None:
    api, old, stays, new = await broker.connect("api"), free_port(), free_port(), free_port()
    await policy(api, 1, at(old, stays))
    async with service(broker, "ingress-anon", tmp_path, POSTERN_LISTEN=f"{LOOPBACK}:{old}", POSTERN_WORKERS="2") as parent:
        workers = Workers(parent.pid)
        before = await workers.all_get_connections(lambda: greeted(old))
        await policy(api, 2, at(stays, new))
        async with asyncio.timeout(20):
            while not await is_refused(old) or await is_refused(new):
                assert not await is_refused(stays)
        for port in (stays, new):
            await workers.all_get_connections(lambda port=port: greeted(port))
        for wire in before:
            assert (await wire.message(MESSAGE)).startswith("250")
    await api.close()
