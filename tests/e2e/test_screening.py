"""Each rule family with each action, through the real stack."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.mail import a_message
from fixtures.relay import Relay

FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sender": ({"type": "sender", "patterns": ["*.rejected.example"]}, {"sender": "x@sub.rejected.example"}),
    "attachment name": (
        {"type": "attachment", "match": "name", "values": ["invoice.pdf"]},
        {"attachments": {"Invoice.PDF": b"x"}},
    ),
    "attachment extension": ({"type": "attachment", "match": "extension", "values": ["exe"]}, {"attachments": {"a.exe": b"x"}}),
    "attachment size": (
        {"type": "attachment", "match": "size", "larger_than_bytes": 5000},
        {"attachments": {"big.bin": b"x" * 5001}},
    ),
    "keyword in header": ({"type": "keyword", "phrases": ["free money"], "scope": "header"}, {"subject": "Get FREE MONEY now"}),
    "keyword in body": ({"type": "keyword", "phrases": ["wire transfer"], "scope": "body"}, {"body": "a Wire Transfer, please"}),
    "keyword anywhere": ({"type": "keyword", "phrases": ["lottery"], "scope": "both"}, {"body": "the lottery"}),
}


@pytest.mark.parametrize("action", ["delete", "hold", "forward"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_rule_family_with_each_action(relay: Relay, family: str, action: str) -> None:
    condition, trigger = FAMILIES[family]
    rule = {"name": f"{family}: {action}", "condition": condition, "action": action}
    if action == "forward":
        rule["forward_to"] = "abuse@relay.example"
    with relay.rule(rule) as rule_id:
        caught = relay.send(
            a_message(**trigger), to=["a@relay.example", "b@relay.example"], sender=trigger.get("sender", "x@sender.example")
        )
        passed = relay.send(a_message(), to=["a@relay.example"])
        assert relay.dispositions(passed) == {"a@relay.example": "delivered"}
        kind = {"delete": "deleted", "hold": "held", "forward": "forwarded"}[action]
        assert relay.dispositions(caught) == {"a@relay.example": kind, "b@relay.example": kind}
    screened = relay.wait_event(caught, "screened")
    assert screened["fields"]["rule_id"] == rule_id
    assert screened["fields"]["part"]
    if action == "hold":
        held = relay.api.get(f"/quarantine/{caught}").json()
        assert held["verdict"]["findings"][0]["rule_name"] == rule["name"]
        relay.api.post(f"/quarantine/{caught}/release").raise_for_status()
        assert relay.wait_dispositions(caught, "delivered") == {"a@relay.example": "delivered", "b@relay.example": "delivered"}
    if action == "forward":
        forwarded = relay.wait_for_arrival(lambda mail: mail.recipients == ("abuse@relay.example",))
        assert b"X-Postern-Original-Recipients: a@relay.example" in forwarded.data


def test_the_first_matching_rule_decides_and_a_disabled_one_does_not(relay: Relay) -> None:
    keyword = {"type": "keyword", "phrases": ["ordered"], "scope": "body"}
    with (
        relay.rule({"name": "off", "mode": "off", "condition": keyword, "action": "delete"}),
        relay.rule({"name": "first", "condition": keyword, "action": "hold"}),
        relay.rule({"name": "second", "condition": keyword, "action": "delete"}),
    ):
        queue_id = relay.send(a_message(body="ordered"), to=["a@relay.example"])
        assert relay.dispositions(queue_id) == {"a@relay.example": "held"}
        relay.api.delete(f"/quarantine/{queue_id}").raise_for_status()
        assert relay.wait_dispositions(queue_id, "deleted") == {"a@relay.example": "deleted"}


def test_a_held_message_can_be_read_and_forwarded(relay: Relay) -> None:
    message = a_message(body="please look at this keyword: sesame")
    with relay.rule({"name": "hold", "condition": {"type": "keyword", "phrases": ["sesame"], "scope": "body"}, "action": "hold"}):
        queue_id = relay.send(message, to=["a@relay.example"])
        assert relay.dispositions(queue_id) == {"a@relay.example": "held"}
    assert relay.api.get(f"/quarantine/{queue_id}/raw").content.endswith(message)
    relay.api.post(f"/quarantine/{queue_id}/forward", json={"to": "boss@relay.example"}).raise_for_status()
    assert relay.wait_dispositions(queue_id, "forwarded") == {"a@relay.example": "forwarded"}
    assert relay.wait_for_arrival(lambda mail: mail.recipients == ("boss@relay.example",)).data.endswith(message)


def test_a_policy_change_is_live_on_every_replica_without_a_restart(relay: Relay) -> None:
    pids = relay.endpoints["processes"]
    assert relay.refused_recipient("a@late.example")
    with relay.domain("late.example"):
        relay.wait_live()
        assert not relay.refused_recipient("a@late.example")
    relay.wait_live()
    assert relay.refused_recipient("a@late.example")
    assert relay.endpoints["processes"] == pids


def test_a_message_that_does_not_parse_is_held_and_not_lost(relay: Relay) -> None:
    broken = b"Content-Type: message/partial; id=1; number=1; total=2\r\n\r\nhalf of something\r\n"
    queue_id = relay.send(broken, to=["a@relay.example"])
    assert relay.dispositions(queue_id) == {"a@relay.example": "held"}


def test_recipients_for_whom_rules_differ_go_their_own_ways(relay: Relay) -> None:
    condition = {
        "type": "all",
        "of": [{"type": "recipient", "patterns": ["b@*"]}, {"type": "keyword", "phrases": ["divided"], "scope": "body"}],
    }
    with relay.rule({"name": "b alone", "condition": condition, "action": "hold"}):
        queue_id = relay.send(a_message(body="divided"), to=["a@relay.example", "b@relay.example", "c@relay.example"])
        split = dict.fromkeys(("a@relay.example", "b@relay.example", "c@relay.example"), "split")
        assert relay.dispositions(queue_id) == split
    ways = {end["recipient"]: end["successor_id"] for end in relay.api.get(f"/messages/{queue_id}").json()["dispositions"]}
    assert ways["a@relay.example"] == ways["c@relay.example"]
    assert relay.dispositions(ways["a@relay.example"]) == {"a@relay.example": "delivered", "c@relay.example": "delivered"}
    held = ways["b@relay.example"]
    assert relay.dispositions(held) == {"b@relay.example": "held"}
    assert relay.wait_event(held, "accepted")["fields"]["about"] == queue_id
    relay.api.post(f"/quarantine/{held}/release").raise_for_status()
    assert relay.wait_dispositions(held, "delivered") == {"b@relay.example": "delivered"}
    share = relay.api.get(f"/messages/{ways['a@relay.example']}").json()["message"]
    assert (share["recipients_total"], share["gate"]) == (2, "internal")
    arrived = [mail.recipients for mail in relay.smart_host.messages if b"divided" in mail.data]
    assert sorted(arrived) == [("a@relay.example", "c@relay.example"), ("b@relay.example",)]
