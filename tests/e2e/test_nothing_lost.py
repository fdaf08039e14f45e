"""`kill -9` of any one service in the middle of 500 messages: all 500 arrive, and the books balance."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter

import pytest

from fixtures.load import Load
from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.stack import queue_id_of

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


@pytest.mark.parametrize("patience_s", [0, 0.002, 0.01, 0.05, 0.5])
def test_a_client_that_hangs_up_after_the_dot_and_sends_again_makes_two_copies_at_most(relay: Relay, patience_s: float) -> None:
    """RFC 1047: what was stored before the client gave up is a second message, and each of the two is delivered once."""
    marker = f"gave-up-{patience_s}"
    host, port = relay.address("anon")
    with socket.create_connection((host, port), timeout=30) as impatient:
        replies = impatient.makefile("rb")
        for line in (b"HELO x.example", b"MAIL FROM:<x@sender.example>", b"RCPT TO:<a@relay.example>", b"DATA"):
            assert replies.readline()[:1] in b"23"
            impatient.sendall(line + b"\r\n")
        assert replies.readline().startswith(b"354")
        impatient.sendall(a_message(subject=marker) + b"\r\n.\r\n")
        time.sleep(patience_s)  # how long this client waits is what is varied
    again = relay.send(a_message(subject=marker), to=["a@relay.example"])
    assert relay.dispositions(again) == {"a@relay.example": "delivered"}
    relay.wait_balanced()
    copies = Counter(relay.queue_id_in(mail.data) for mail in relay.smart_host.messages if marker.encode() in mail.data)
    assert copies[again] == 1
    assert len(copies) <= 2
    assert set(copies.values()) == {1}


@pytest.mark.parametrize("beside_the_limit", [-1, 0, 1])
def test_a_thousand_long_recipients_with_a_body_at_the_inline_limit(relay: Relay, beside_the_limit: int) -> None:
    """The broker counts the envelope into its limit, its client does not: one message over it would close the gate's connection."""
    domain = ".".join(["d" * 60] * 2 + ["wild.example"])
    recipients = [f"{n:04d}{'l' * 60}@{domain}" for n in range(1000)]
    with relay.limits("anon", max_recipients=None), relay.client("anon", timeout=60) as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:<x@sender.example>")
        assert {client.docmd("RCPT", f"TO:<{recipient}>")[0] for recipient in recipients} == {250}
        head = b"Subject: long\r\n\r\n"
        # the Received: field comes on top, so the sizes lie on both sides of the limit whatever its length
        lines, rest = divmod(512 * 1024 + beside_the_limit * 400 - 200 - len(head), 72)
        queue_id = queue_id_of(client.data(head + b"x" * 70 + (b"\r\n" + b"x" * 70) * (lines - 1) + b"\r\n" + b"y" * rest))
    assert set(relay.dispositions(queue_id).values()) == {"delivered"}
    got = Counter(
        recipient for mail in relay.smart_host.messages if queue_id.encode() in mail.data for recipient in mail.recipients
    )
    assert got == Counter(recipients)
