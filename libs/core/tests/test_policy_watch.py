"""A service's policy: what is in force whatever happens to the broker, to a revision, or to the disk."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fixtures.broker import Broker
from postern_core.broker.names import PROVISIONER
from postern_core.bus import Bus, PolicyWatch
from postern_core.bus import policy as policy_module
from postern_core.policy import GatePolicy, RetrySchedule, Section, encode_section

PATIENCE_S = 20
Watch = PolicyWatch[GatePolicy, GatePolicy]


def policy(revision: int) -> bytes:
    return encode_section(GatePolicy(revision=revision, hostname="mx.relay.example"))


@asynccontextmanager
async def watching(
    bus: Bus, compile_section: Callable[[GatePolicy], GatePolicy] = lambda it: it, **more: object
) -> AsyncIterator[Watch]:
    watch = PolicyWatch(bus, Section.GATES, GatePolicy, compile_section, **more)  # type: ignore[arg-type]
    stop = asyncio.Event()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(watch.run(stop))
        yield watch
        stop.set()


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.01)


async def test_without_any_policy_there_is_none(broker: Broker) -> None:
    gate = await broker.connect("ingress-anon")
    async with watching(gate) as watch:
        await gate.kv_get("POLICY", "gates")
        assert (watch.current, watch.revision, watch.loaded.is_set()) == (None, 0, False)
    await gate.close()


async def test_a_start_without_the_broker_uses_the_revision_that_was_kept(broker: Broker, tmp_path: Path) -> None:
    api, gate = await broker.connect("api"), await broker.connect("ingress-anon")
    await api.kv_put("POLICY", "gates", policy(7))
    async with watching(gate, state_dir=tmp_path / "state") as watch:
        await until((tmp_path / "state" / "policy-gates.bin").exists)
        assert watch.revision == 7
    broker.stop()
    await until(lambda: not gate.connected)
    async with watching(gate, state_dir=tmp_path / "state") as again:
        await until(again.loaded.is_set)
        assert again.revision == 7
    await gate.close()
    await api.close()


async def test_a_disk_that_cannot_keep_it_does_not_keep_it_from_being_in_force(broker: Broker, tmp_path: Path) -> None:
    """Was: the error ended the service."""
    (tmp_path / "state").write_text("a file where the folder should be")
    api, gate = await broker.connect("api"), await broker.connect("ingress-anon")
    await api.kv_put("POLICY", "gates", policy(1))
    async with watching(gate, state_dir=tmp_path / "state") as watch:
        await until(lambda: watch.revision == 1)
        await api.kv_put("POLICY", "gates", policy(2))
        await until(lambda: watch.revision == 2)
    await gate.close()
    await api.close()


async def test_a_kept_revision_that_is_damaged_is_no_policy(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "policy-gates.bin").write_bytes(policy(7)[:-3])
    gate = await broker.connect("ingress-anon")
    broker.stop()
    await until(lambda: not gate.connected)
    async with watching(gate, state_dir=tmp_path) as watch:
        await until(lambda: watch.error)
        assert watch.current is None
    await gate.close()


async def test_what_does_not_compile_leaves_the_last_good_one_in_force_and_says_why(broker: Broker) -> None:
    def compile_section(section: GatePolicy) -> GatePolicy:
        if section.revision == 2:
            raise ValueError("revision 2 is not for us")
        return section

    api, gate = await broker.connect("api"), await broker.connect("ingress-anon")
    async with watching(gate, compile_section) as watch:
        for revision, error in ((1, ""), (2, "revision 2 is not for us"), (3, "")):
            await api.kv_put("POLICY", "gates", policy(revision))
            await until(lambda revision=revision, error=error: (watch.error, watch.revision) == (error, 1 if error else revision))
        await api.kv_put("POLICY", "gates", encode_section(RetrySchedule()))
        await until(lambda: watch.error)
        assert "revision" in watch.error  # another section is not taken for ours
        assert watch.revision == 3
    await gate.close()
    await api.close()


async def test_a_change_after_a_restart_of_the_broker_is_heard(broker: Broker) -> None:
    api, gate = await broker.connect("api"), await broker.connect("ingress-anon")
    await api.kv_put("POLICY", "gates", policy(1))
    async with watching(gate) as watch:
        await until(lambda: watch.revision == 1)
        await asyncio.to_thread(broker.restart)
        await until(lambda: api.connected and gate.connected)
        await api.kv_put("POLICY", "gates", policy(2))
        await until(lambda: watch.revision == 2)
    await gate.close()
    await api.close()


async def test_a_change_that_nobody_was_told_of_is_found(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "_POLL_S", 0.05)
    provisioner, api, gate = [await broker.connect(user) for user in (PROVISIONER, "api", "ingress-anon")]
    config = (await provisioner.jetstream.stream_info("KV_POLICY")).config
    await provisioner.jetstream.update_stream(config.evolve(republish=None))
    await api.kv_put("POLICY", "gates", policy(1))
    async with watching(gate) as watch:
        await until(lambda: watch.revision == 1)
        await api.kv_put("POLICY", "gates", policy(2))
        await until(lambda: watch.revision == 2)
    for bus in (provisioner, api, gate):
        await bus.close()


async def test_while_a_policy_compiles_the_loop_waits_less_for_the_interpreter(broker: Broker) -> None:
    """Was: five milliseconds at each turn, twice, for as long as a list of 100,000 phrases took to compile."""
    usual, seen = sys.getswitchinterval(), dict[int, float]()

    def compiled(section: GatePolicy) -> GatePolicy:
        seen[section.revision] = sys.getswitchinterval()
        if section.revision == 1:
            raise ValueError("it does not compile")
        return section

    api, gate = await broker.connect("api"), await broker.connect("ingress-anon")
    await api.kv_put("POLICY", "gates", policy(1))
    async with watching(gate, compiled) as watch:
        await until(lambda: watch.error)
        assert sys.getswitchinterval() == usual
        await api.kv_put("POLICY", "gates", policy(2))
        await until(lambda: watch.revision == 2)
    assert sys.getswitchinterval() == usual
    assert max(seen.values()) < usual / 4
    await gate.close()
    await api.close()
