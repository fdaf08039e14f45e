"""Real and malformed mail through the whole system: one end each, the bytes that came, and the right answer to what is refused."""

from __future__ import annotations

import re
import socket
from typing import BinaryIO

import pytest

from fixtures.corpus import ACCEPTED, REFUSED
from fixtures.relay import Relay

_RECIPIENT = "a@relay.example"
_OUR_FIELD = re.compile(rb"Received: [^\r]*\r\n(?:[ \t][^\r]*\r\n)*?[^\r]*\bid [0-9a-z]{26}[^\r]*\r\n(?:[ \t][^\r]*\r\n)*")


def test_every_specimen_comes_to_one_end_and_arrives_as_it_was_sent(relay: Relay) -> None:
    accepted = {}
    with _Session(relay) as session:
        for name, message in ACCEPTED.items():
            reply = session.hand_in(message)
            assert reply.startswith("250 2.0.0"), (name, reply)
            accepted[reply.split()[-1]] = name
    held = []
    for queue_id, name in accepted.items():
        [kind] = relay.dispositions(queue_id).values()
        assert kind in ("delivered", "held"), name
        if kind == "held":  # not understood, so somebody has to look at it; it is whole there, too
            held.append(name)
            raw = relay.api.get(f"/quarantine/{queue_id}/raw").raise_for_status().content
            assert _behind_our_field(raw, queue_id) == _as_accepted(ACCEPTED[name]), name
            relay.api.post(f"/quarantine/{queue_id}/release").raise_for_status()
    for queue_id, name in accepted.items():
        assert relay.wait_dispositions(queue_id, "delivered") == {_RECIPIENT: "delivered"}
        [mail] = [mail for mail in relay.smart_host.messages if relay.queue_id_in(mail.data) == queue_id]
        assert _behind_our_field(mail.data, queue_id) == _as_accepted(ACCEPTED[name]), name
        assert (mail.reverse_path, mail.recipients) == ("x@sender.example", (_RECIPIENT,)), name
    assert "half of a message" in held
    assert "text" not in held
    assert len(relay.smart_host.messages) == len(accepted) == len(ACCEPTED)
    assert relay.smart_host.host.violations == []
    balanced = relay.wait_balanced()
    assert balanced["accepted"] == balanced["delivered"] == len(accepted)


@pytest.mark.parametrize("name", REFUSED)
def test_a_specimen_that_nobody_may_hand_on_is_refused_and_the_session_goes_on(relay: Relay, name: str) -> None:
    before = relay.smart_host_count()
    message, answer = REFUSED[name]
    with _Session(relay) as session:
        reply = session.hand_in(message)
        assert reply.startswith(f"{answer} "), reply
        behind = session.hand_in(ACCEPTED["text"]).split()[-1]  # in step
    assert relay.dispositions(behind) == {_RECIPIENT: "delivered"}
    assert relay.smart_host_count() == before + 1
    assert relay.wait_balanced()["in_flight"] == 0


class _Session:
    """A client that sends octets as they are; a new connection when the gate has had enough of one."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._socket: socket.socket | None = None
        self._replies: BinaryIO | None = None

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def hand_in(self, message: bytes) -> str:
        """The reply to the end of data."""
        answer = self._say(b"MAIL FROM:<x@sender.example>") if self._socket is not None else "421"
        if answer.startswith("421"):
            self._connect()
            answer = self._say(b"MAIL FROM:<x@sender.example>")
        assert answer.startswith("250"), answer
        assert self._say(b"RCPT TO:<a@relay.example>").startswith("250")
        assert self._say(b"DATA").startswith("354")
        stuffed = b"\r\n" + message
        end = b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n"
        return self._say(stuffed.replace(b"\r\n.", b"\r\n..")[2:] + end[:-2])

    def _connect(self) -> None:
        self.__exit__()
        self._socket = socket.create_connection(self._relay.address("anon"), timeout=60)
        self._replies = self._socket.makefile("rb")
        assert self._replies.readline().startswith(b"220")
        assert self._say(b"HELO x.example").startswith("250")

    def _say(self, line: bytes) -> str:
        assert self._socket is not None
        assert self._replies is not None
        self._socket.sendall(line + b"\r\n")
        return self._replies.readline().decode()


def _behind_our_field(data: bytes, queue_id: str) -> bytes:
    field = _OUR_FIELD.match(data)
    assert field, data[:300]
    assert queue_id.encode() in field.group()
    return data[field.end() :]


def _as_accepted(message: bytes) -> bytes:
    """An empty line stands between our field and what would continue it (docs/reference/smtp.md)."""
    return b"\r\n" + message if message[:1] in (b" ", b"\t") else message
