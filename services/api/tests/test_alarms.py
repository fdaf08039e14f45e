"""Each alarm is raised by the condition itself on a real broker, and goes when that is mended."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, eventually
from fixtures.broker import TEST_LIMITS, Broker
from postern_api.alarms import conditions
from postern_api.alarms.kinds import Severity
from postern_core.broker.names import PROVISIONER
from postern_core.bus import Bus, Consumer, Delivered
from postern_core.bus.provision import ensure_route, provision
from postern_core.errors import TransientError

KB = b"x" * 1024
PULL = b'{"batch":1,"no_wait":true}'


@pytest.fixture
async def watched(start_api: ApiStarter) -> RunningApi:
    """An api that looks often."""
    return await start_api(BOOTSTRAP, alarms_every_s=0.2)


@pytest.fixture
async def provisioner(broker: Broker) -> AsyncIterator[Bus]:
    bus = await broker.connect(PROVISIONER)
    yield bus
    await bus.close()


async def raised(api: RunningApi, kind: str, about: str, severity: str = "critical") -> dict[str, Any]:
    """The alarm, as soon as it is up."""

    async def find() -> dict[str, Any]:
        alarms = (await api.get("/alarms"))["alarms"]
        found: list[dict[str, Any]] = [a for a in alarms if (a["kind"], a["about"], a["severity"]) == (kind, about, severity)]
        return found[0] if found else {}

    return await eventually(find, 30)


async def cleared(api: RunningApi) -> None:
    """No alarm is up, after a look."""

    async def none() -> bool:
        answer = await api.get("/alarms")
        return answer["looked_at"] is not None and answer["alarms"] == []

    await eventually(none, 30)


async def take(bus: Bus, stream: str, consumer: str, number: int) -> None:
    """Pull and acknowledge `number` messages."""
    stop, left = asyncio.Event(), number

    async def settle(delivered: Delivered) -> None:
        nonlocal left
        await delivered.ack()
        left -= 1
        if left <= 0:
            stop.set()

    async with asyncio.timeout(60):
        await Consumer(bus, stream, consumer, settle, concurrency=1).run(stop, 5)


async def take_and_keep(bus: Bus) -> None:
    """Take one message from INTAKE, and never acknowledge it."""
    inbox = bus.client.new_inbox()
    answers = await bus.client.subscribe(inbox)
    await bus.client.publish("$JS.API.CONSUMER.MSG.NEXT.INTAKE.screener", PULL, reply=inbox)
    assert (await answers.next_msg(timeout=5)).subject.startswith("intake.")
    await answers.unsubscribe()


async def test_a_stream_that_fills_up_warns_then_alarms_and_is_quiet_when_it_has_emptied(
    watched: RunningApi, provisioner: Bus
) -> None:
    await cleared(watched)
    await provision(provisioner, replace(TEST_LIMITS, intake_bytes=100 * 1100))
    gate, screener = await watched.broker.connect("ingress-anon"), await watched.broker.connect("screener")
    for n in range(75):
        await gate.publish("INTAKE", f"intake.anon.{n}", KB, f"{n}")
    warning = await raised(watched, "stream_filling", "INTAKE", "warning")
    assert 0.7 <= warning["figures"]["fill"] < 0.85
    for n in range(75, 90):
        await gate.publish("INTAKE", f"intake.anon.{n}", KB, f"{n}")
    alarm = await raised(watched, "stream_filling", "INTAKE")
    assert alarm["since"] == warning["since"]
    assert "452 4.3.1" in alarm["summary"]
    assert (await watched.get("/status"))["alarms"] == {"critical": 1, "warning": 0}
    await take(screener, "INTAKE", "screener", 90)
    await cleared(watched)
    await gate.close()
    await screener.close()


async def test_mail_that_nobody_takes_on_is_told_of_by_its_age(watched: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: what a screener could not read, or store the outcome of, lay in INTAKE for as long as it liked, and only that screener's log said so."""
    monkeypatch.setattr(conditions, "_STANDS_S", ((Severity.WARNING, 0.1),))
    gate, screener = await watched.broker.connect("ingress-anon"), await watched.broker.connect("screener")
    await gate.publish("INTAKE", "intake.anon.0", KB, "0")
    alarm = await raised(watched, "mail_standing", "INTAKE", "warning")
    assert alarm["figures"]["messages"] == 1
    await take(screener, "INTAKE", "screener", 1)
    await cleared(watched)
    await gate.close()
    await screener.close()


async def test_mail_that_the_broker_gave_up_is_stranded_until_the_consumer_is_made_anew(
    watched: RunningApi, provisioner: Bus
) -> None:
    gate, screener = await watched.broker.connect("ingress-anon"), await watched.broker.connect("screener")
    info = await provisioner.jetstream.consumer_info("INTAKE", "screener")
    await provisioner.jetstream.add_consumer("INTAKE", info.config.evolve(max_deliver=1, ack_wait=0.2))
    for n in range(3):
        await gate.publish("INTAKE", f"intake.anon.{n}", KB, f"{n}")
    await take(screener, "INTAKE", "screener", 1)
    for _ in range(2):
        await take_and_keep(screener)
    alarm = await raised(watched, "stranded_messages", "INTAKE")
    assert alarm["figures"] == {"stranded": 2, "messages": 2}
    await provisioner.api("CONSUMER.DELETE.INTAKE.screener", {})
    await provision(provisioner, TEST_LIMITS)
    await take(screener, "INTAKE", "screener", 2)
    await cleared(watched)
    await gate.close()
    await screener.close()


async def test_mail_on_a_subject_that_no_consumer_covers_is_stranded(watched: RunningApi, provisioner: Bus) -> None:
    screener = await watched.broker.connect("screener")
    await screener.publish("OUTBOUND", "outbound.main.one", KB, "one")  # this one waits, and is nobody's worry
    for n in range(3):
        await screener.publish("OUTBOUND", f"outbound.nowhere.{n}", KB, f"{n}")
    alarm = await raised(watched, "stranded_messages", "OUTBOUND")
    assert alarm["figures"] == {"stranded": 3, "messages": 4}
    await ensure_route(provisioner, "nowhere", TEST_LIMITS)
    await cleared(watched)
    await screener.close()


async def test_a_busy_work_queue_is_not_taken_for_one_with_stranded_mail(start_api: ApiStarter) -> None:
    api = await start_api(BOOTSTRAP, alarms_every_s=3600)
    gate, screener = await api.broker.connect("ingress-anon"), await api.broker.connect("screener")
    await gate.publish("INTAKE", "intake.anon.slow", KB, "slow")
    # one that is worked on for long stands at the head of the queue, while all others pass it
    await take_and_keep(screener)
    stop = asyncio.Event()
    passed = 0

    async def accept(lane: int) -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            await gate.publish("INTAKE", f"intake.anon.{lane}-{n}", KB, f"{lane}-{n}")

    async def settle(delivered: Delivered) -> None:
        nonlocal passed
        await delivered.ack()
        passed += 1

    watch = api.api.context.watch
    async with asyncio.TaskGroup() as tasks:
        for lane in range(8):
            tasks.create_task(accept(lane))
        tasks.create_task(Consumer(screener, "INTAKE", "screener", settle, concurrency=8).run(stop, 5))
        for _ in range(40):
            await watch.look()
            assert watch.board.alarms == []
        stop.set()
    assert passed > 40
    await gate.close()
    await screener.close()


async def test_a_consumer_that_is_missing_and_one_too_many(watched: RunningApi, provisioner: Bus) -> None:
    await provisioner.api("CONSUMER.DELETE.INTAKE.screener", {})
    await raised(watched, "consumer_missing", "INTAKE/screener")
    await provision(provisioner, TEST_LIMITS)
    await cleared(watched)
    await provisioner.api("CONSUMER.DELETE.OUTBOUND.delivery-main", {})
    await raised(watched, "consumer_missing", "OUTBOUND/delivery-main")
    await watched.api.context.publisher.publish()  # as every half minute
    await cleared(watched)
    spy = ConsumerConfig(durable_name="spy", ack_policy=AckPolicy.EXPLICIT)
    await provisioner.jetstream.add_consumer("DEFERRED", spy)
    await provisioner.jetstream.add_consumer("OUTBOUND", spy.evolve(filter_subject="outbound.spied.*"))
    await ensure_route(provisioner, "of-yesterday", TEST_LIMITS)  # a route that is gone may have mail: its consumer stays
    await raised(watched, "consumer_unexpected", "DEFERRED", "warning")
    alarm = await raised(watched, "consumer_unexpected", "OUTBOUND", "warning")
    assert alarm["figures"] == {"consumers": ["spy"]}
    for stream in ("DEFERRED", "OUTBOUND"):
        await provisioner.api(f"CONSUMER.DELETE.{stream}.spy", {})
    await cleared(watched)


async def test_a_stream_that_is_gone_and_a_broker_that_is(watched: RunningApi, provisioner: Bus) -> None:
    await provisioner.api("STREAM.DELETE.BADMAIL", {})
    alarm = await raised(watched, "stream_unreadable", "BADMAIL")
    assert "not found" in alarm["summary"]
    watched.broker.stop()
    await raised(watched, "broker_silent", "")
    # what is not seen is neither mended nor broken
    assert (await raised(watched, "stream_unreadable", "BADMAIL"))["since"] == alarm["since"]
    assert (await watched.get("/alarms"))["unseen"] == ["the broker"]
    watched.broker.restart()

    async def made_anew() -> bool:
        try:
            await provision(provisioner, TEST_LIMITS, recreate_missing=True)
        except (TransientError, OSError, TimeoutError):
            return False
        return True

    await eventually(lambda: asyncio.sleep(0, provisioner.connected))
    await eventually(made_anew)
    await cleared(watched)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
async def test_what_the_broker_could_not_read_from_its_disk(watched: RunningApi, where: float) -> None:
    broker = watched.broker
    gate = await broker.connect("ingress-anon")
    for n in range(20):
        await gate.publish("INTAKE", f"intake.anon.{n}", KB, f"{n}")
    await gate.close()
    await watched.api.context.watch.look()
    broker.stop(signal.SIGKILL)
    [block] = (broker.directory / "store/jetstream/POSTERN/streams/INTAKE/msgs").glob("*.blk")
    data = bytearray(block.read_bytes())
    data[int(len(data) * where)] ^= 1
    block.write_bytes(data)
    broker.restart()
    alarm = await raised(watched, "stream_damaged", "INTAKE")
    assert alarm["figures"]["lost_bytes"] >= 1024 or alarm["figures"]["lost_sequences"] > 0
