"""Clients that hang up 0 to 500 ms behind the final dot and send again (RFC 1047): how many copies there are, and why."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.stack import eventually

PATIENCES_S = [n / 50 for n in range(26)]  # 0, 20 … 500 ms
GONE_FIRST = PATIENCES_S[: len(PATIENCES_S) // 2]  # the broker answers nobody until these have hung up
_QUEUED = re.compile(rb"250 2\.0\.0 .*queued as ([0-9a-z]{26})")


def test_each_copy_of_mail_whose_client_hung_up_behind_the_dot_is_explained(relay: Relay) -> None:
    accepted = relay.wait_balanced()["accepted"]
    told: dict[float, str] = {}  # by patience: the queue id that a client had been told when it hung up, "" for nothing
    ready = threading.Barrier(len(PATIENCES_S) + 1)
    with ThreadPoolExecutor(len(PATIENCES_S)) as clients:
        for patience_s in PATIENCES_S:
            clients.submit(lambda patience_s=patience_s: told.update({patience_s: _hand_in(relay, patience_s, ready)}))
        ready.wait(30)
        [broker] = relay.pids("nats-server")
        os.kill(broker, signal.SIGSTOP)
        try:
            ready.wait(30)
            eventually(lambda: told.keys() >= set(GONE_FIRST), "the impatient to hang up")
        finally:
            os.kill(broker, signal.SIGCONT)
    assert set(told) == set(PATIENCES_S)
    again = {patience_s: relay.send(a_message(subject=_marker(patience_s)), to=["a@relay.example"]) for patience_s in PATIENCES_S}
    for queue_id in again.values():
        assert relay.dispositions(queue_id) == {"a@relay.example": "delivered"}
    balanced = relay.wait_balanced()
    extra = 0
    for patience_s in PATIENCES_S:
        subject = f"Subject: {_marker(patience_s)}\r\n".encode()
        copies = Counter(relay.queue_id_in(mail.data) for mail in relay.smart_host.messages if subject in mail.data)
        assert set(copies.values()) == {1}, patience_s  # nothing arrives twice under one id
        assert again[patience_s] in copies
        others = set(copies) - {again[patience_s]}
        if told[patience_s]:
            assert others == {told[patience_s]}  # its client had the 250, and sent it again all the same
        else:
            assert len(others) <= 1  # taken after its client had left: the gap of RFC 1047
        for queue_id in others:
            assert relay.dispositions(queue_id) == {"a@relay.example": "delivered"}
        extra += len(others)
    # and there is no message that nobody can explain
    assert balanced["accepted"] == accepted + len(PATIENCES_S) + extra
    assert not any(told[patience_s] for patience_s in GONE_FIRST)


def _marker(patience_s: float) -> str:
    return f"gave-up-after-{patience_s:g}"


def _hand_in(relay: Relay, patience_s: float, ready: threading.Barrier) -> str:
    """Send the final dot while the broker stands still, wait, hang up; returns the queue id of a 250 that had come until then."""
    with socket.create_connection(relay.address("anon"), timeout=30) as client:
        replies = client.makefile("rb")
        for line in (b"HELO x.example", b"MAIL FROM:<x@sender.example>", b"RCPT TO:<a@relay.example>", b"DATA"):
            assert replies.readline()[:1] in b"23"
            client.sendall(line + b"\r\n")
        assert replies.readline().startswith(b"354")
        ready.wait(30)  # everybody is here
        ready.wait(30)  # and the broker stands still
        client.sendall(a_message(subject=_marker(patience_s)) + b"\r\n.\r\n")
        time.sleep(patience_s)  # what is varied
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            found = _QUEUED.match(client.recv(4096))
            return found.group(1).decode() if found else ""
    return ""
