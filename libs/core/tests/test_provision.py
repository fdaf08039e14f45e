"""Provisioning against a real broker: again and again, and with a stream gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from dataclasses import replace

import pytest
from nats.js.api import DiscardPolicy

from fixtures.broker import TEST_LIMITS, Broker
from postern_core.broker.names import PROVISIONER
from postern_core.bus.provision import ensure_route, provision
from postern_core.bus.topology import BODIES, INTAKE, streams
from postern_core.errors import ConfigurationError


async def test_it_can_be_repeated_also_after_a_restart(broker: Broker) -> None:
    await broker.provision()
    broker.restart()
    await broker.provision()
    await broker.provision()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_every_stream_outlives_a_restart_of_the_broker(broker: Broker, number: signal.Signals) -> None:
    """Was: STATUS lay in memory and was gone, and nobody could see any replica until somebody provisioned again."""
    broker.restart(number)
    bus = await broker.connect(PROVISIONER)
    names = (await bus.api("STREAM.NAMES", {}))["streams"]
    assert set(names) == {config.name for config in streams(TEST_LIMITS)}
    await bus.close()


async def test_a_stream_that_existed_and_is_gone_is_an_error_and_not_a_reason_to_begin_anew(broker: Broker) -> None:
    await broker.provision()  # an update must not forget what was created
    bus = await broker.connect(PROVISIONER)
    await bus.jetstream.delete_stream("QUARANTINE")
    with pytest.raises(ConfigurationError, match="QUARANTINE existed and are gone"):
        await provision(bus, TEST_LIMITS)
    await provision(bus, TEST_LIMITS, recreate_missing=True)
    await bus.close()


async def test_a_limit_is_not_lowered_below_what_a_stream_holds_and_that_stops_nothing(broker: Broker) -> None:
    """Was: an error, so that a disk that had filled up kept the stack from starting and the mail in it from moving on."""
    screener, bus = await broker.connect("screener"), await broker.connect(PROVISIONER)
    for k in range(3):
        await screener.publish(BODIES, f"body.screener.x.{k}", bytes(100_000), f"x:{k}")
    await provision(bus, replace(TEST_LIMITS, bodies_bytes=1000, badmail_bytes=2_000_000))
    info = await bus.jetstream.stream_info(BODIES)
    assert (info.config.max_bytes, info.state.messages) == (TEST_LIMITS.bodies_bytes, 3)
    assert (await bus.jetstream.stream_info("BADMAIL")).config.max_bytes == 2_000_000
    await screener.close()
    await bus.close()


async def test_what_somebody_changed_by_hand_is_brought_back(broker: Broker) -> None:
    """Each of these changes loses or strands mail, and none is noticed while all goes well."""
    bus = await broker.connect(PROVISIONER)
    await ensure_route(bus, "main", TEST_LIMITS)
    intake = (await bus.jetstream.stream_info(INTAKE)).config
    await bus.jetstream.update_stream(intake.evolve(discard=DiscardPolicy.OLD, max_age=3600, max_msgs=5, duplicate_window=60))
    changed = (("INTAKE", "screener"), ("OUTBOUND", "delivery-main"), ("DISPOSITIONS", "recorder"), ("EVENTS", "recorder"))
    for stream, name in changed:
        consumer = (await bus.jetstream.consumer_info(stream, name)).config
        await bus.jetstream.add_consumer(stream, replace(consumer, max_deliver=2, ack_wait=1, max_ack_pending=1))
    await broker.provision()
    intake = (await bus.jetstream.stream_info(INTAKE)).config
    assert (intake.discard, intake.max_age, intake.max_msgs) == (DiscardPolicy.NEW, 0, -1)
    assert intake.duplicate_window == 1800
    for stream, name in changed:
        consumer = (await bus.jetstream.consumer_info(stream, name)).config
        assert (consumer.max_deliver, consumer.ack_wait, consumer.max_ack_pending) == (-1, 30, 10_000), name
    await bus.close()


async def test_mail_in_every_stream_survives_provisioning_and_a_crash(broker: Broker) -> None:
    screener, delivery = await broker.connect("screener"), await broker.connect("delivery")
    gate, api = await broker.connect("ingress-anon"), await broker.connect("api")
    await gate.publish("INTAKE", "intake.anon.x", b"mail", "x")
    await screener.publish("OUTBOUND", "outbound.main.x", b"job", "x")
    await screener.publish("QUARANTINE", "quarantine.x", b"held", "x")
    await delivery.publish("DEFERRED", "deferred.x", b"job", "x")
    await delivery.publish("BADMAIL", "badmail.x", b"job", "x")
    await delivery.publish("DISPOSITIONS", "disposition.x.0", b"{}", "x")
    await api.kv_put("POLICY", "gates", b"policy")
    await broker.provision()
    for bus in (screener, delivery, gate, api):
        await bus.close()
    broker.restart(signal.SIGKILL)
    await broker.provision()
    bus = await broker.connect(PROVISIONER)
    names = ("INTAKE", "OUTBOUND", "QUARANTINE", "DEFERRED", "BADMAIL", "DISPOSITIONS", "KV_POLICY")
    assert {name: (await bus.stream_state(name))["messages"] for name in names} == dict.fromkeys(names, 1)
    await bus.close()


@pytest.mark.parametrize(("url", "code", "said"), [("::::", 78, "POSTERN_NATS_URL"), (None, 0, "")])
async def test_the_program_says_how_it_ended(broker: Broker, url: str | None, code: int, said: str) -> None:
    environment = {
        "POSTERN_NATS_URL": url or broker.url,
        "POSTERN_NATS_MONITOR_URL": broker.monitor_url,
        "POSTERN_NATS_PASSWORD_FILE": str(broker.directory / "provisioner.password"),
        "POSTERN_BUS_SCALE": "0.01",
    }
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "postern_core.bus.provision", env={**os.environ, **environment}, stdout=PIPE, stderr=PIPE
    )
    out, err = await program.communicate()
    assert program.returncode == code
    assert said in err.decode()
    assert b"Traceback" not in out + err
    assert err.count(b"\n") == bool(code)
