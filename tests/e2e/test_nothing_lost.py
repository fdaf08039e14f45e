"""`kill -9` of any one service in the middle of 500 messages: all 500 arrive, and the books balance."""

from __future__ import annotations

import threading

import pytest

from fixtures.load import Load
from fixtures.mail import a_message
from fixtures.relay import Relay

MESSAGES = 500


@pytest.mark.parametrize("service", ["ingress-anon", "ingress-auth", "screener", "delivery", "api", "nats-server"])
@pytest.mark.timeout(300)
def test_kill_9_under_load(relay: Relay, service: str) -> None:
    load = Load(relay, messages=MESSAGES, connections=8)
    sender = threading.Thread(target=load.run, name="load")
    sender.start()
    load.wait_accepted(MESSAGES // 4)
    relay.kill(service)
    load.wait_accepted(MESSAGES // 2)
    relay.kill(service)
    sender.join()
    assert len(load.accepted) == MESSAGES
    for queue_id in load.accepted:
        assert relay.wait_dispositions(queue_id, "delivered") == {"a@relay.example": "delivered"}
    assert {queue_id for queue_id in load.accepted if relay.copies(queue_id) == 0} == set()
    ledger = relay.wait_balanced()
    assert ledger["in_flight"] == 0


def test_the_gate_says_451_without_a_broker_and_recovers_by_itself(relay: Relay) -> None:
    with relay.paused("nats-server"), relay.client("anon", timeout=60) as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:<x@sender.example>")
        code, _ = client.docmd("RCPT", "TO:<a@relay.example>")
        if code == 250:
            code, text = client.data(a_message())
            assert text.startswith(b"4.3.0")
        assert code == 451
    queue_id = relay.send_when_accepted(a_message(), to=["a@relay.example"])
    assert relay.dispositions(queue_id) == {"a@relay.example": "delivered"}


def test_a_large_message_travels_whole(relay: Relay) -> None:
    message = a_message(attachments={"big.bin": bytes(range(256)) * 4096})
    queue_id = relay.send(message, to=["a@relay.example"])
    assert relay.received(queue_id).data.endswith(message)


def test_everything_waits_for_a_service_that_is_away(relay: Relay) -> None:
    with relay.paused("screener"):
        ids = [relay.send(a_message(), to=["a@relay.example"]) for _ in range(20)]
    for queue_id in ids:
        assert relay.wait_dispositions(queue_id, "delivered") == {"a@relay.example": "delivered"}


def test_a_policy_change_after_a_restart_of_the_broker_reaches_every_replica(relay: Relay) -> None:
    """Was: the replicas' reports lay in the broker's memory and were gone with it, so that nobody could tell."""
    relay.kill("nats-server")
    with relay.domain("after-restart.example"):
        relay.wait_live()
        assert not relay.refused_recipient("a@after-restart.example")
