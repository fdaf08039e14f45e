"""Mail that rules change, through the real stack: what arrives, who else hears of it, and books that balance."""

from __future__ import annotations

import email
import email.policy
import hashlib
from typing import Any

from fixtures.mail import a_message
from fixtures.relay import Relay

PROGRAMS = {"type": "attachment", "match": "extension", "values": ["exe"]}


def read(data: bytes) -> Any:
    return email.message_from_bytes(data, policy=email.policy.default)


def test_what_a_rule_changes_arrives_changed_and_is_copied_and_told_of(relay: Relay) -> None:
    rule = {
        "name": "no programs",
        "condition": PROGRAMS,
        "action": "continue",
        "changes": [
            {"type": "strip-attachments"},
            {"type": "tag-subject", "text": "[geprüft]"},
            {"type": "add-header", "name": "X-Stripped", "value": "yes"},
            {"type": "add-disclaimer", "text": "Nur für Sie."},
            {"type": "copy-to", "address": "audit@relay.example"},
            {"type": "notify", "address": "admin@relay.example"},
        ],
    }
    program = b"MZ\x00 program"
    mail = a_message(subject="a program", body="hello", attachments={"setup.exe": program, "a.txt": b"text"})
    with relay.rule(rule):
        sent = relay.send(mail, to=["a@relay.example"])
        assert relay.dispositions(sent) == {"a@relay.example": "delivered"}
        arrived = read(
            relay.wait_for_arrival(lambda mail: mail.recipients == ("a@relay.example",) and b"X-Stripped" in mail.data).data
        )
        copy = relay.wait_for_arrival(lambda mail: mail.recipients == ("audit@relay.example",))
        notice = relay.wait_for_arrival(lambda mail: mail.recipients == ("admin@relay.example",))
    assert arrived["Subject"] == "[geprüft] a program"
    texts = [str(part.get_content()) for part in arrived.walk() if part.get_content_type() == "text/plain"]
    assert any("Nur für Sie." in text for text in texts)
    assert any(hashlib.sha256(program).hexdigest() in text for text in texts)
    assert not any(part.get_filename() == "setup.exe" for part in arrived.walk())
    assert b"X-Postern-Copied-By:" in copy.data
    assert any(part.get_filename() == "setup.exe" for part in read(copy.data).walk())
    assert notice.reverse_path == ""
    assert sent in str(read(notice.data).get_content())
    screened = relay.wait_event(sent, "screened")
    assert "strip-attachments" in screened["fields"]["changes"]


def test_a_rule_on_trial_changes_nothing_and_says_what_it_would_have_changed(relay: Relay) -> None:
    rule = {
        "name": "on trial",
        "mode": "monitor",
        "condition": PROGRAMS,
        "action": "continue",
        "changes": [{"type": "strip-attachments"}, {"type": "copy-to", "address": "trial@relay.example"}],
    }
    with relay.rule(rule):
        sent = relay.send(a_message(attachments={"b.exe": b"MZ"}), to=["trial-to@relay.example"])
        arrived = relay.wait_for_arrival(lambda mail: mail.recipients == ("trial-to@relay.example",))
        assert relay.dispositions(sent) == {"trial-to@relay.example": "delivered"}
    assert b"b.exe" in arrived.data
    screened = relay.wait_event(sent, "screened")
    assert screened["fields"]["changes"] == "strip-attachments (monitored); copy-to trial@relay.example (monitored)"
