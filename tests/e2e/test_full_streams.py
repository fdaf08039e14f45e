"""Streams fill up from behind: delivery stands still, then the screener, and then the gate says 452. When it moves again, all of it arrives."""

from __future__ import annotations

import smtplib
import subprocess
from pathlib import Path

import pytest

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.stack import POSTERN, environment, eventually, queue_id_of

MESSAGE = a_message(body=("x" * 70 + "\r\n") * 2000)
TINY = {"POSTERN_BUS_SCALE": "0.001", "POSTERN_ALARMS_EVERY_S": "0.5"}  # 4 MiB each for INTAKE and OUTBOUND


@pytest.mark.timeout(240)
def test_a_full_outbound_stops_the_screener_and_a_full_intake_the_gate_and_nothing_is_lost(tmp_path: Path) -> None:
    with Relay(tmp_path / "var", environment=TINY) as relay, relay.limits("anon", max_messages=None, max_session_bytes=None):
        accepted: list[str] = []
        with relay.paused("delivery"):
            refusal = _send_until_refused(relay, accepted)
            eventually(lambda: {"OUTBOUND", "INTAKE"} <= _filling(relay), "the alarms of both streams")
            code, told = _alarms(relay)
            assert code == 1
            assert "critical stream_filling INTAKE" in told
            assert "alarms: 2 critical" in relay.postern("status")
        assert refusal.startswith(b"4.3.1")
        streams = relay.streams()
        assert streams["OUTBOUND"]["messages"] > 5
        assert streams["INTAKE"]["messages"] > 5
        for queue_id in accepted:
            assert relay.wait_dispositions(queue_id, "delivered") == {"a@relay.example": "delivered"}
        assert {queue_id for queue_id in accepted if relay.copies(queue_id) != 1} == set()
        eventually(lambda: not _filling(relay), "the alarms to be cleared")
        assert _alarms(relay) == (0, "no alarms\n")
        again = relay.send(MESSAGE, to=["a@relay.example"])
        assert relay.dispositions(again) == {"a@relay.example": "delivered"}
        assert relay.wait_balanced()["accepted"] == len(accepted) + 1


def _filling(relay: Relay) -> set[str]:
    """Streams that are as good as full, says the API."""
    alarms = relay.api.get("/alarms").raise_for_status().json()["alarms"]
    return {alarm["about"] for alarm in alarms if (alarm["kind"], alarm["severity"]) == ("stream_filling", "critical")}


def _alarms(relay: Relay) -> tuple[int, str]:
    """Exit code of `postern alarms`, and what it printed."""
    done = subprocess.run(
        [str(POSTERN), "alarms", "--state", str(relay.state)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


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
