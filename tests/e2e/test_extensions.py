"""ESMTP extensions from the gate to the smart host: DSN (RFC 3461), CHUNKING and BINARYMIME (RFC 3030)."""

from __future__ import annotations

import email
import email.policy
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fixtures.relay import Relay

OCTETS = bytes(range(256)) * 20 + b"\r\n.\r\nQUIT\r\n\n.\n\0"


def binary_message(subject: str, name: str = "picture.bin", boundary: str = "=_b") -> bytes:
    head = (
        f"From: x@sender.example\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: multipart/mixed; boundary="{boundary}"\r\nContent-Transfer-Encoding: binary\r\n\r\n'
        f"--{boundary}\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
        f'--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="{name}"\r\n'
        "Content-Transfer-Encoding: binary\r\n\r\n"
    )
    return head.encode() + OCTETS + f"\r\n--{boundary}--\r\n".encode()


def hand_in(relay: Relay, *commands: str, chunks: list[bytes]) -> str:
    """The queue id. The whole session goes out in one write."""
    pieces = [f"{command}\r\n".encode() for command in ("EHLO client.example", *commands)]
    for n, octets in enumerate(chunks, 1):
        pieces += [f"BDAT {len(octets)}{' LAST' if n == len(chunks) else ''}\r\n".encode(), octets]
    with socket.create_connection(relay.address("anon"), timeout=30) as client:
        client.sendall(b"".join([*pieces, b"QUIT\r\n"]))
        replies = client.makefile("rb").read().decode().splitlines()
    assert all(reply.startswith("2") for reply in replies), replies
    return replies[-2].split()[-1]


@contextmanager
def offering(relay: Relay, *extensions: str) -> Iterator[None]:
    host = relay.smart_host.host
    before = host.offer
    host.offer = {*before, *extensions}
    relay.smart_host.stop()  # sessions that are open know what was offered before
    relay.smart_host.start()
    try:
        yield
    finally:
        host.offer = before
        relay.smart_host.stop()
        relay.smart_host.start()


@pytest.mark.parametrize("takes_binary", [True, False])
def test_a_binary_message_arrives_octet_for_octet_or_as_text(relay: Relay, takes_binary: bool) -> None:
    message = binary_message(f"binary {takes_binary}")
    extensions = ("CHUNKING", "BINARYMIME") if takes_binary else ()
    with offering(relay, *extensions):
        queue_id = hand_in(
            relay,
            "MAIL FROM:<x@sender.example> BODY=BINARYMIME",
            "RCPT TO:<a@relay.example>",
            chunks=[message[:1000], message[1000:]],
        )
        assert relay.wait_dispositions(queue_id, "delivered") == {"a@relay.example": "delivered"}
    received = relay.received(queue_id)
    parsed = email.message_from_bytes(received.data, policy=email.policy.SMTP)
    if takes_binary:
        assert received.data.endswith(message)
        assert (received.chunked, "BODY=BINARYMIME" in received.mail_parameters) == (True, True)
    else:
        assert [part.get_payload(decode=True) for part in parsed.walk() if not part.is_multipart()] == [b"hello", OCTETS]
        assert not received.chunked
    assert relay.smart_host.host.violations == []


def test_a_binary_message_that_nobody_can_take_is_returned_once(relay: Relay) -> None:
    message = binary_message("signed").replace(b"multipart/mixed", b"multipart/signed")
    queue_id = hand_in(relay, "MAIL FROM:<me@relay.example> BODY=BINARYMIME", "RCPT TO:<a@relay.example>", chunks=[message])
    assert relay.wait_dispositions(queue_id, "bounced") == {"a@relay.example": "bounced"}
    ndr = relay.wait_for_arrival(lambda mail: mail.reverse_path == "" and queue_id.encode() in mail.data)
    assert b"5.6.1" in ndr.data
    assert ndr.data.isascii()


def test_rules_see_into_binary_parts(relay: Relay) -> None:
    rule = {"name": "no programs", "condition": {"type": "attachment", "match": "extension", "values": ["exe"]}, "action": "hold"}
    with relay.rule(rule):
        queue_id = hand_in(
            relay,
            "MAIL FROM:<x@sender.example> BODY=BINARYMIME",
            "RCPT TO:<a@relay.example>",
            chunks=[binary_message("program", "evil.exe")],
        )
        assert relay.wait_dispositions(queue_id, "held") == {"a@relay.example": "held"}


def test_what_the_sender_asks_about_reports_goes_on_or_is_honoured(relay: Relay) -> None:
    mail = "MAIL FROM:<me@relay.example> RET=HDRS ENVID=QQ+2B314"
    rcpt = "RCPT TO:<a@relay.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first+2Bname@old.example"
    queue_id = hand_in(relay, mail, rcpt, chunks=[b"Subject: asks\r\n\r\ntext\r\n"])
    received = relay.received(queue_id)
    assert {"RET=HDRS", "ENVID=QQ+2B314"} <= set(received.mail_parameters.split())
    assert received.rcpt_parameters == ("NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first+2Bname@old.example",)
    with relay.recipient_refused("a@relay.example"), relay.recipient_refused("b@relay.example"):
        queue_id = hand_in(
            relay, mail, rcpt, "RCPT TO:<b@relay.example> NOTIFY=NEVER", chunks=[b"Subject: asks\r\n\r\nthe text\r\n"]
        )
        assert relay.wait_dispositions(queue_id, "bounced") == {"a@relay.example": "bounced", "b@relay.example": "bounced"}
    ndr = relay.wait_for_arrival(lambda mail: mail.reverse_path == "" and queue_id.encode() in mail.data)
    assert b"Original-Envelope-Id: QQ+314\r\n" in ndr.data
    assert b"Original-Recipient: rfc822; first+name@old.example\r\n" in ndr.data
    assert b"b@relay.example" not in ndr.data  # NOTIFY=NEVER
    assert b"the text" not in ndr.data  # RET=HDRS
