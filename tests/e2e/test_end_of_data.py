"""Every form of a false end of data, through the whole relay: one message at the smart host at most, and what is handed on is clean."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence

import pytest

from fixtures.relay import Relay

# the endings that some server somewhere takes for the end; the last five end a line for Python, not in SMTP
FALSE_ENDS = {
    "LF.LF": b"\n.\n",
    "CR.CR": b"\r.\r",
    "CR.LF": b"\r.\n",
    "LF.CR": b"\n.\r",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "NEL": "\x85.\x85".encode(),
    "LS": "\u2028.\u2028".encode(),
    "FS": b"\x1c.\x1c",
    "GS": b"\x1d.\x1d",
    "RS": b"\x1e.\x1e",
}
_NUL = {"CRLF NUL.CRLF": b"\r\n\0.\r\n", "CRLF.NUL CRLF": b"\r\n.\0\r\n"}
_INNER = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@relay.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil"
_HARMLESS = {"NEL", "LS", "FS", "GS", "RS"}


@pytest.mark.parametrize("setting", ["reject", "normalise"])
def test_no_false_end_of_data_makes_a_second_message_and_what_is_handed_on_is_clean(relay: Relay, setting: str) -> None:
    before, accepted = relay.smart_host_count(), {}
    with relay.limits("anon", bare_newline=setting):
        for name, end in (FALSE_ENDS | _NUL).items():
            for pieces in (1, 2):  # the end as a whole, and across two segments
                code, queue_id = _hand_in(relay, f"{name}/{pieces}", end, pieces)
                refused = name in _NUL or (setting == "reject" and name not in _HARMLESS)
                assert code == (550 if refused else 250), (name, pieces)
                if not refused:
                    accepted[queue_id] = name
    for queue_id, name in accepted.items():
        assert relay.dispositions(queue_id) == {"a@relay.example": "delivered"}
        data = relay.received(queue_id).data
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", data), name
        assert data.count(b"evil") == 2, name  # what followed the false end is text of this message, in full
    assert relay.smart_host_count() == before + len(accepted)
    assert not [mail for mail in relay.smart_host.messages if "victim@relay.example" in mail.recipients]
    assert relay.wait_balanced()["in_flight"] == 0


def _hand_in(relay: Relay, subject: str, end: bytes, pieces: int) -> tuple[int, str]:
    """The reply to the true end of data: its code, and the queue id in a 250."""
    head = f"Subject: {subject}\r\n\r\none".encode()
    with socket.create_connection(relay.address("anon"), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = client.makefile("rb")
        for line in (b"HELO x.example", b"MAIL FROM:<x@sender.example>", b"RCPT TO:<a@relay.example>", b"DATA"):
            assert replies.readline()[:1] in b"23"
            client.sendall(line + b"\r\n")
        assert replies.readline().startswith(b"354")
        _send(client, [head + end + _INNER + b"\r\n.\r\n"] if pieces == 1 else [head + end[:1], end[1:] + _INNER + b"\r\n.\r\n"])
        reply = replies.readline()
        client.sendall(b"QUIT\r\n")
        assert replies.readline().startswith(b"221"), reply  # in step: the false end was not the end of anything
    return int(reply[:3]), reply.split()[-1].decode()


def _send(client: socket.socket, segments: Sequence[bytes]) -> None:
    for segment in segments:
        client.sendall(segment)
        time.sleep(0.01)  # so that it is most likely a segment of its own; all must hold either way
