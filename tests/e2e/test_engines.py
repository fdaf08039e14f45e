"""Engines through the whole stack: switched on by the API, asked for real mail, away and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.clamd import INFECTED, VIRUS, ClamdServer
from fixtures.mail import a_message
from fixtures.relay import Relay


@pytest.fixture
def clamd(tmp_path: Path) -> ClamdServer:
    return ClamdServer(tmp_path / "clamd")


def test_a_virus_is_held_an_outage_holds_up_mail_and_yara_sees_attachments(relay: Relay, clamd: ClamdServer) -> None:
    virus = INFECTED.decode()
    with clamd:
        relay.api.put("/engines/clamd", json={"enabled": True, "address": clamd.tcp}).raise_for_status()
        relay.wait_live()
        caught = relay.send(a_message(body=f"see {virus}"), to=["a@relay.example"])
        assert relay.dispositions(caught) == {"a@relay.example": "held"}
        verdict = relay.api.get(f"/quarantine/{caught}").json()["verdict"]
        assert verdict["hold_reason"] == "virus"
        assert [answer["engine"] for answer in verdict["answers"]] == ["clamd"]
        screened = relay.wait_event(caught, "screened")["fields"]
        assert screened["clamd"] == f"found {VIRUS}.UNOFFICIAL"
        assert relay.dispositions(relay.send(a_message(), to=["a@relay.example"])) == {"a@relay.example": "delivered"}

        clamd.stop()
        waiting = relay.send(a_message(subject="later"), to=["a@relay.example"])
        assert "cannot connect" in relay.wait_event(waiting, "deferred")["fields"]["reason"]
        clamd.start()
        assert relay.wait_dispositions(waiting, "delivered") == {"a@relay.example": "delivered"}
        relay.api.put("/engines/clamd", json={"enabled": False}).raise_for_status()
        relay.wait_live()

    source = 'rule Marker : test { strings: $a = "postern-yara-marker" condition: $a }'
    relay.api.put("/yara/e2e.yar", content=source, headers={"Content-Type": "text/plain"}).raise_for_status()
    relay.api.put("/engines/yara", json={"enabled": True}).raise_for_status()
    rule = {"name": "yara", "condition": {"type": "yara", "tags": ["test"]}, "action": "hold"}
    with relay.rule(rule):
        caught = relay.send(a_message(attachments={"a.bin": b"..postern-yara-marker"}), to=["a@relay.example"])
        assert relay.dispositions(caught) == {"a@relay.example": "held"}
        [finding] = relay.api.get(f"/quarantine/{caught}").json()["verdict"]["findings"]
        assert (finding["part"], finding["offset"]) == ("2", 2)
    relay.api.put("/engines/yara", json={"enabled": False}).raise_for_status()
