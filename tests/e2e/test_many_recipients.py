"""Mail to many: delivery is killed in the middle of them, and a thousand of the longest addresses beside a body at the inline limit."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.smart_host import ReceivedMessage
from fixtures.stack import queue_id_of
from postern_core.settings import BusSettings

RECIPIENTS = [f"u{n:02d}@relay.example" for n in range(12)]
INLINE_LIMIT = BusSettings.model_fields["inline_limit_bytes"].default
RFC_PATH = 256 - 2  # RFC 5321 section 4.5.3.1.3 counts the angle brackets
LONGEST_PATH = 512 - 2  # what our gate takes (docs/reference/smtp.md)


@pytest.mark.parametrize(
    ("route_takes", "host_takes", "taken"), [(1, None, False), (100, 3, True)], ids=["before the third", "before the 250 to it"]
)
def test_a_delivery_that_is_killed_after_k_of_n_recipients_repeats_none_but_the_transaction_under_way(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, route_takes: int, host_takes: int | None, taken: bool
) -> None:
    """qmail's rule (a byte in place for each recipient), with a process that really dies."""
    host = relay.smart_host.host
    record, hanging, under_way = host.record, threading.Event(), []

    async def third_hangs(message: ReceivedMessage) -> None:
        under_way.append(message)
        if len(under_way) == 3:
            if taken:
                await record(message)
            hanging.set()
            await asyncio.Event().wait()
        await record(message)

    before = relay.smart_host_count()
    route = relay.api.get("/routes/default").raise_for_status().json()
    relay.api.put("/routes/default", json=route | {"max_recipients": route_takes}).raise_for_status()
    relay.wait_live()
    monkeypatch.setattr(host, "max_recipients", host_takes)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(host, "record", third_hangs)
            queue_id = relay.send(a_message(), to=RECIPIENTS)
            assert hanging.wait(60)
            relay.kill("delivery")
        assert relay.dispositions(queue_id) == dict.fromkeys(RECIPIENTS, "delivered")
        assert relay.wait_balanced()["in_flight"] == 0
    finally:
        relay.api.put("/routes/default", json=route).raise_for_status()
        relay.wait_live()
    copies = Counter(recipient for message in relay.smart_host.messages[before:] for recipient in message.recipients)
    assert set(copies) == set(RECIPIENTS)
    twice = {recipient for recipient, count in copies.items() if count == 2}
    assert twice == (set(under_way[2].recipients) if taken else set())  # RFC 1047: taken, and nobody was told
    assert max(copies.values()) <= 2


@pytest.mark.parametrize("beside_the_limit", [-1, 0, 1])
@pytest.mark.parametrize("octets", [RFC_PATH, LONGEST_PATH])
def test_a_thousand_of_the_longest_recipients_with_a_body_at_the_inline_limit(
    relay: Relay, octets: int, beside_the_limit: int
) -> None:
    """The broker counts the envelope into its limit, its client does not: one message over it would close the gate's connection."""
    recipients = [_address(n, octets) for n in range(1000)]
    assert {len(recipient) for recipient in recipients} == {octets}
    with relay.limits("anon", max_recipients=None):
        stored = relay.streams()["BODIES"]["last_seq"]
        probe = _send(relay, recipients[:2], b"Subject: how long is our field\r\n\r\n.\r\n")
        added = len(relay.received(probe).data) - len(b"Subject: how long is our field\r\n\r\n.\r\n")
        head = b"Subject: long\r\n\r\n"
        lines, rest = divmod(INLINE_LIMIT + beside_the_limit - added - len(head) - len(b"\r\n"), 72)
        message = head + (b"x" * 70 + b"\r\n") * lines + b"y" * rest + b"\r\n"
        queue_id = _send(relay, recipients, message)
    assert set(relay.dispositions(queue_id).values()) == {"delivered"}
    copies = [mail for mail in relay.smart_host.messages if relay.queue_id_in(mail.data) == queue_id]
    assert Counter(recipient for mail in copies for recipient in mail.recipients) == Counter(recipients)
    assert {len(mail.data) for mail in copies} == {INLINE_LIMIT + beside_the_limit}  # as the gate counted it
    assert (relay.streams()["BODIES"]["last_seq"] > stored) == (beside_the_limit > 0)
    assert relay.wait_balanced()["in_flight"] == 0


def _address(number: int, octets: int) -> str:
    """So long in all: a domain of 180 octets, the rest before the @."""
    domain = ".".join([*["d" * 55] * 3, "wild.example"])
    local = f"{number:04d}"
    return f"{local}{'l' * (octets - len(local) - 1 - len(domain))}@{domain}"


def _send(relay: Relay, recipients: list[str], message: bytes) -> str:
    with relay.client("anon", timeout=60) as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:<x@sender.example>")
        assert {client.docmd("RCPT", f"TO:<{recipient}>")[0] for recipient in recipients} == {250}
        return queue_id_of(client.data(message))
