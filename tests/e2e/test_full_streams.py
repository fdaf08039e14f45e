"""Streams fill up from behind: delivery stands still, then the screener, and then the gate says 452. When it moves again, all of it arrives."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.stack import queue_id_of

MESSAGE = a_message(body=("x" * 70 + "\r\n") * 2000)
TINY = {"POSTERN_BUS_SCALE": "0.001"}  # 4 MiB each for INTAKE and OUTBOUND


@pytest.mark.timeout(240)
def test_a_full_outbound_stops_the_screener_and_a_full_intake_the_gate_and_nothing_is_lost(tmp_path: Path) -> None:
    with Relay(tmp_path / "var", environment=TINY) as relay, relay.limits("anon", max_messages=None, max_session_bytes=None):
        accepted: list[str] = []
        with relay.paused("delivery"):
            refusal = _send_until_refused(relay, accepted)
        assert refusal.startswith(b"4.3.1")
        streams = relay.streams()
        assert streams["OUTBOUND"]["messages"] > 5
        assert streams["INTAKE"]["messages"] > 5
        for queue_id in accepted:
            assert relay.wait_dispositions(queue_id, "delivered") == {"a@relay.example": "delivered"}
        assert {queue_id for queue_id in accepted if relay.copies(queue_id) != 1} == set()
        again = relay.send(MESSAGE, to=["a@relay.example"])
        assert relay.dispositions(again) == {"a@relay.example": "delivered"}
        assert relay.wait_balanced()["accepted"] == len(accepted) + 1


def _send_until_refused(relay: Relay, accepted: list[str]) -> bytes:
    """The text of the 452."""
    with relay.client("anon", timeout=60) as client:
        client.ehlo()
        while len(accepted) < 500:
            client.docmd("MAIL", "FROM:<x@sender.example>")
            client.docmd("RCPT", "TO:<a@relay.example>")
            try:
                answer = client.data(MESSAGE)
            except smtplib.SMTPDataError as refused:
                answer = (refused.smtp_code, refused.smtp_error)
            if answer[0] != 250:
                assert answer[0] == 452, answer
                return answer[1]
            accepted.append(queue_id_of(answer))
    raise AssertionError("the streams never filled up")
