"""Mail that comes at the same moment shares entries of the bus: each message has an end of its own, and an administrator sees it meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.stack import eventually, queue_id_of

CLIENTS = 24
RULE = {"name": "no lottery", "condition": {"type": "keyword", "phrases": ["lottery"], "scope": "body"}, "action": "delete"}
GONE, LATER = "gone@relay.example", "later@relay.example"


def recipients_of(k: int) -> list[str]:
    return {0: [GONE], 1: [LATER], 2: ["a@relay.example", "b@relay.example"]}.get(k % 6, [f"r{k}@relay.example"])


def body_of(k: int) -> str:
    return "the lottery\r\n" if k % 6 == 3 else f"message {k}\r\n"


def end_of(k: int, recipient: str) -> str:
    return "deleted" if k % 6 == 3 else "bounced" if recipient == GONE else "delivered"


def send_at_once(relay: Relay) -> list[str]:
    """All are behind their final dot while the broker stands still; their queue ids in the order of the clients."""
    ready, sent = threading.Barrier(CLIENTS + 1), threading.Barrier(CLIENTS + 1)

    def send(k: int) -> str:
        with relay.client("anon") as client:
            client.ehlo()
            client.mail("x@sender.example")
            for recipient in recipients_of(k):
                assert client.rcpt(recipient)[0] == 250
            assert client.docmd("DATA")[0] == 354
            ready.wait(30)
            client.send(a_message(body=body_of(k)) + b"\r\n.\r\n")
            sent.wait(30)
            return queue_id_of(client.getreply())

    with ThreadPoolExecutor(CLIENTS) as clients:
        sending = [clients.submit(send, k) for k in range(CLIENTS)]
        with relay.paused("nats-server"):
            ready.wait(30)
            sent.wait(30)
        return [each.result() for each in sending]


def test_each_of_many_at_once_comes_to_its_own_end(relay: Relay) -> None:
    with relay.rule(RULE), relay.schedule(intervals_s=[1]), relay.recipient_refused(GONE):
        with relay.recipient_deferred(LATER):
            ids = send_at_once(relay)
            for queue_id in ids[1::6]:
                relay.wait_queued(queue_id)
        for k, queue_id in enumerate(ids):
            ends = {recipient: end_of(k, recipient) for recipient in recipients_of(k)}
            assert relay.dispositions(queue_id) == ends
            assert relay.copies(queue_id) == ("delivered" in ends.values())
        relay.wait_balanced()


def test_what_waits_in_a_batch_is_seen(relay: Relay) -> None:
    with relay.paused("screener"):
        ids = send_at_once(relay)
        assert 0 < relay.streams()["INTAKE"]["messages"] < CLIENTS
        for queue_id in ids:
            places = eventually(lambda queue_id=queue_id: relay.trace(queue_id).get("places"), "its place to be known")
            assert [(place["stream"], queue_id in place["subject"]) for place in places or ()] == [("INTAKE", True)]
        assert relay.api.get("/ledger/verification", params={"grace_s": 1}).raise_for_status().json()["balanced"]
    for queue_id in ids:
        assert "delivered" in relay.dispositions(queue_id).values()
