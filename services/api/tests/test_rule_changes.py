"""Changes of rules: what the api takes, shows and publishes, and what it refuses with which words."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.api import RunningApi
from postern_core.changes import AddDisclaimer, AddHeader, CopyTo, Notify, RemoveHeader, StripAttachments, TagSubject
from postern_core.policy import ScreeningPolicy, decode_section

CHANGES: list[dict[str, Any]] = [
    {"type": "tag-subject", "text": "[Größe]"},
    {"type": "remove-header", "name": "Reply-To"},
    {"type": "add-header", "name": "Reply-To", "value": "desk@relay.example"},
    {"type": "strip-attachments", "every": True},
    {"type": "add-disclaimer", "text": "from outside\nbeware", "html": "<p>from outside</p>"},
    {"type": "copy-to", "address": "audit@Relay.Example"},
    {"type": "notify", "address": ""},
]


def a_rule(action: str, *changes: dict[str, Any]) -> dict[str, Any]:
    forward_to = "a@relay.example" if action == "forward" else ""
    return {
        "name": "changes",
        "condition": {"type": "keyword", "phrases": ["alpha"]},
        "action": action,
        "forward_to": forward_to,
        "changes": list(changes),
    }


async def test_changes_are_kept_shown_and_published(api: RunningApi) -> None:
    made = (await api.client.post("/rules", json=a_rule("continue", *CHANGES))).raise_for_status().json()
    shown = await api.get(f"/rules/{made['id']}")
    wanted = [change | ({"address": "audit@relay.example"} if change["type"] == "copy-to" else {}) for change in CHANGES]
    assert (shown["action"], shown["changes"]) == ("continue", wanted)
    data = await api.bus.kv_get("POLICY", "screening")
    assert data is not None
    policy = decode_section(data, ScreeningPolicy)
    assert policy.hostname
    assert policy.rules[0].changes == (
        TagSubject(text="[Größe]"),
        RemoveHeader(name="Reply-To"),
        AddHeader(name="Reply-To", value="desk@relay.example"),
        StripAttachments(every=True),
        AddDisclaimer(text="from outside\nbeware", html="<p>from outside</p>"),
        CopyTo(address="audit@relay.example"),
        Notify(),
    )


@pytest.mark.parametrize("action", ["delete", "hold"])
async def test_what_does_not_go_on_is_copied_and_told_of_and_not_changed(api: RunningApi, action: str) -> None:
    beside = a_rule(action, CHANGES[5], {"type": "notify", "address": "admin@relay.example"})
    assert (await api.client.post("/rules", json=beside)).status_code == 201
    for change in CHANGES[:5]:
        refused = await api.client.post("/rules", json=a_rule(action, change))
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_changes")
        assert "copy-to and notify only" in refused.json()["message"]


@pytest.mark.parametrize("action", ["allow", "forward"])
async def test_what_goes_on_takes_every_change(api: RunningApi, action: str) -> None:
    assert (await api.client.post("/rules", json=a_rule(action, *CHANGES))).status_code == 201


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ([], "invalid_changes", "needs changes"),
        ([{"type": "tag-subject", "text": " "}], "invalid_changes", "the tag is empty"),
        ([{"type": "tag-subject", "text": "x" * 61}], "invalid_changes", "more than 60"),
        ([{"type": "add-header", "name": "X A", "value": "v"}], "invalid_changes", "no name of a header field"),
        ([{"type": "add-header", "name": "Content-Type", "value": "v"}], "invalid_changes", "cannot be added"),
        ([{"type": "remove-header", "name": "Received"}], "invalid_changes", "cannot be added or removed"),
        ([{"type": "add-header", "name": "subject", "value": "v"}], "invalid_changes", "remove it before"),
        ([{"type": "add-disclaimer", "text": "\n"}], "invalid_changes", "has no text"),
        ([{"type": "add-disclaimer", "text": "a\x00b"}], "invalid_changes", "cannot be printed"),
        ([{"type": "copy-to", "address": "nobody"}], "invalid_address", "nobody"),
        ([{"type": "notify", "address": "@x"}], "invalid_address", "@x"),
    ],
)
async def test_what_a_rule_cannot_do_is_refused_by_name(
    api: RunningApi, changes: list[dict[str, Any]], name: str, said: str
) -> None:
    refused = await api.client.post("/rules", json=a_rule("continue", *changes))
    assert (refused.status_code, refused.json()["error"]) == (400, name)
    assert said in refused.json()["message"]
    assert await api.get("/rules") == []


@pytest.mark.parametrize(
    "change",
    [
        {"type": "encrypt"},
        {"type": "copy-to"},
        {"type": "strip-attachments", "every": "yes"},
        {"type": "add-header", "name": "X", "value": "a\r\nBcc: b@x.example"},
    ],
)
async def test_a_malformed_change_is_422(api: RunningApi, change: dict[str, Any]) -> None:
    assert (await api.client.post("/rules", json=a_rule("continue", change))).status_code == 422
