"""A screener with little memory, and a message that needs more: that message is held, nothing is lost, and everybody else's mail goes on."""

from __future__ import annotations

from pathlib import Path

from fixtures.mail import a_message
from fixtures.relay import Relay

LIMIT_MIB = "256"
MIB = 1024 * 1024
RULE = {"name": "any", "condition": {"type": "keyword", "scope": "body", "phrases": ["in-no-mail"]}, "action": "delete"}


def a_glutton() -> bytes:
    """Eight megabytes of HTML in characters that take four octets each in memory, of which screening needs several forms at once."""
    head = b"From: x@sender.example\r\nSubject: much\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n"
    line = b"<b>some words</b> in a row\r\n"
    return head + b"Content-Transfer-Encoding: 8bit\r\n\r\n" + "\N{GRINNING FACE}\r\n".encode() + line * (8 * MIB // len(line))


def test_a_message_that_needs_more_memory_than_there_is_is_held_and_no_other(tmp_path: Path) -> None:
    environment = {"POSTERN_MEMORY_LIMIT_MIB": LIMIT_MIB, "POSTERN_SANDBOX_MEMORY_MIB": LIMIT_MIB}
    with Relay(tmp_path / "var", environment=environment) as relay:
        screener = relay.pids("screener")
        with relay.limits("anon", max_message_bytes=16 * MIB, max_session_bytes=None), relay.rule(RULE):
            gluttons, others = [], []
            for _ in range(2):
                others += [relay.send(a_message(), to=["a@relay.example"]) for _ in range(10)]
                gluttons.append(relay.send(a_glutton(), to=["a@relay.example"]))
                others.append(relay.send(a_message(attachments={"large.bin": bytes(2 * MIB)}), to=["a@relay.example"]))
            for queue_id in others:
                assert relay.dispositions(queue_id) == {"a@relay.example": "delivered"}
            for queue_id in gluttons:
                assert relay.dispositions(queue_id) == {"a@relay.example": "held"}
                held = relay.api.get(f"/quarantine/{queue_id}").raise_for_status().json()
                assert held["verdict"]["hold_reason"] == "poison"
        assert relay.wait_balanced()["in_flight"] == 0
        assert relay.pids("screener") == screener
        assert "MemoryError" in (relay.state / "logs" / "screener.log").read_text()
    assert [relay.copies(queue_id) for queue_id in others] == [1] * len(others)


def test_a_message_that_does_not_even_fit_into_the_worker_is_held_and_no_other(tmp_path: Path) -> None:
    """It was retried for ever, and the worker's broker connection broke each time; and with a limit below the sandbox's own, no sandbox
    started, so that nothing that came again was ever screened."""
    with Relay(tmp_path / "var", environment={"POSTERN_MEMORY_LIMIT_MIB": "160"}) as relay:
        screener = relay.pids("screener")
        with relay.limits("anon", max_message_bytes=80 * MIB, max_session_bytes=None), relay.rule(RULE):
            huge = relay.send(a_message() + b"x\r\n" * (64 * MIB // 3), to=["a@relay.example"])
            others = [relay.send(a_message(), to=["a@relay.example"]) for _ in range(10)]
            for queue_id in others:
                assert relay.dispositions(queue_id) == {"a@relay.example": "delivered"}
            assert relay.dispositions(huge) == {"a@relay.example": "held"}
        assert relay.wait_balanced()["in_flight"] == 0
        assert relay.pids("screener") == screener
