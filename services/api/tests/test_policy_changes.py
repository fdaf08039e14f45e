"""Policy objects through the API: each noun, its errors, and what reaches the bus."""

from __future__ import annotations

import asyncio
from typing import Any

import argon2
import httpx
import msgspec
import pytest

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, eventually
from postern_api.errors import InvalidError
from postern_api.rules.service import checked_rule_id, new_rule_id
from postern_core.bus.topology import delivery_consumer
from postern_core.credentials import RouteSecret, SmtpUser, user_key
from postern_core.policy import (
    DeliveryPolicy,
    GatePolicy,
    ScreeningPolicy,
    UnscannableAction,
    UnscannablePolicy,
    decode_section,
)


async def section(api: RunningApi, name: str, kind: Any) -> Any:
    data = await api.bus.kv_get("POLICY", name)
    assert data is not None
    return decode_section(data, kind)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert set(body) == {"error", "message", "detail"}
    return answer.status_code, body["error"]


async def test_a_domain_is_added_changed_and_removed_and_each_change_is_on_the_bus(api: RunningApi) -> None:
    added = await api.client.post("/domains", json={"pattern": "*.Wild.Example."})
    assert added.status_code == 201
    assert added.json() == {"pattern": "*.wild.example", "route": "", "accept": True, "recipients": "any"}
    assert added.headers["Postern-Revision"] == "2"
    assert added.headers["Postern-Live"] == "true"
    gates = await section(api, "gates", GatePolicy)
    assert gates.revision == 2
    assert [domain.pattern for domain in gates.relay_domains] == ["relay.example", "*.wild.example"]
    changed = await api.client.put(
        "/domains/*.wild.example", json={"pattern": "*.wild.example", "accept": False, "route": "main"}
    )
    assert changed.headers["Postern-Revision"] == "3"
    assert (await api.get("/domains/*.wild.example"))["accept"] is False
    assert (await section(api, "delivery", DeliveryPolicy)).relay_domains[1].route == "main"
    gone = await api.client.delete("/domains/*.wild.example")
    assert gone.status_code == 204
    assert gone.headers["Postern-Revision"] == "4"
    assert [each["pattern"] for each in await api.get("/domains")] == ["relay.example"]
    assert (await section(api, "screening", ScreeningPolicy)).revision == 4


async def test_international_names_are_kept_as_a_labels(api: RunningApi) -> None:
    assert (await api.client.post("/domains", json={"pattern": "bücher.example"})).json()["pattern"] == "xn--bcher-kva.example"


REFUSALS: list[tuple[str, str, Any, tuple[int, str]]] = [
    ("POST", "/domains", {"pattern": "not a domain"}, (400, "invalid_domain")),
    ("POST", "/domains", {"pattern": "a.*.example"}, (400, "invalid_domain")),
    ("POST", "/domains", {"pattern": "relay.example"}, (409, "domain_exists")),
    ("POST", "/domains", {"pattern": "b.example", "route": "nowhere"}, (400, "unknown_route")),
    ("POST", "/domains", {"patern": "b.example"}, (422, "malformed_payload")),
    ("POST", "/domains", [], (422, "malformed_payload")),
    ("PUT", "/domains/b.example", {"pattern": "b.example"}, (404, "domain_not_found")),
    ("PUT", "/domains/relay.example", {"pattern": "b.example"}, (400, "name_differs")),
    ("DELETE", "/domains/b.example", None, (404, "domain_not_found")),
    ("POST", "/routes", {"name": "Main", "smart_hosts": [{"host": "h.example"}]}, (400, "invalid_route_name")),
    ("POST", "/routes", {"name": "b", "smart_hosts": []}, (422, "malformed_payload")),
    ("POST", "/routes", {"name": "b", "smart_hosts": [{"host": "[h.example]"}]}, (400, "invalid_smart_host")),
    ("POST", "/routes", {"name": "b", "smart_hosts": [{"host": "h", "port": 0}]}, (422, "malformed_payload")),
    ("POST", "/routes", {"name": "b", "smart_hosts": [{"host": "h"}], "timeout_s": 1}, (422, "malformed_payload")),
    ("POST", "/routes", {"name": "main", "smart_hosts": [{"host": "h.example"}]}, (409, "route_exists")),
    ("POST", "/routes", {"name": "b", "smart_hosts": [{"host": "h"}], "user": "u"}, (400, "password_missing")),
    ("POST", "/routes", {"name": "b", "smart_hosts": [{"host": "h"}], "password": "p"}, (400, "user_missing")),
    (
        "POST",
        "/routes",
        {"name": "b", "smart_hosts": [{"host": "h"}], "user": "u", "password": "p", "tls": "off"},
        (400, "tls_needed"),
    ),
    ("PUT", "/routes/main", {"name": "main", "smart_hosts": [{"host": "h"}]}, (409, "default_route_required")),
    ("DELETE", "/routes/main", None, (409, "default_route_required")),
    ("DELETE", "/routes/b", None, (404, "route_not_found")),
    (
        "POST",
        "/rules",
        {"name": "r", "condition": {"type": "sender", "patterns": []}, "action": "hold"},
        (400, "invalid_condition"),
    ),
    ("POST", "/rules", {"name": "r", "condition": {"type": "smell"}, "action": "hold"}, (422, "malformed_payload")),
    (
        "POST",
        "/rules",
        {"name": "r", "condition": {"type": "keyword", "phrases": [" "]}, "action": "hold"},
        (400, "invalid_condition"),
    ),
    (
        "POST",
        "/rules",
        {"name": "r", "condition": {"type": "sender", "patterns": ["@"]}, "action": "hold"},
        (400, "invalid_address"),
    ),
    (
        "POST",
        "/rules",
        {"name": "r", "condition": {"type": "attachment", "match": "size", "values": ["x"]}, "action": "hold"},
        (400, "invalid_condition"),
    ),
    (
        "POST",
        "/rules",
        {"name": "r", "condition": {"type": "keyword", "phrases": ["x"]}, "action": "forward"},
        (400, "forward_to_missing"),
    ),
    (
        "POST",
        "/rules",
        {"name": "r", "condition": {"type": "keyword", "phrases": ["x"]}, "action": "forward", "forward_to": "a@b@"},
        (400, "invalid_address"),
    ),
    (
        "POST",
        "/rules",
        {"name": "r", "condition": {"type": "keyword", "phrases": ["x"]}, "action": "hold", "forward_to": "a@b.example"},
        (400, "forward_to_unused"),
    ),
    ("PUT", "/rules/order", {"ids": ["r-1"]}, (409, "rules_differ")),
    ("DELETE", "/rules/r-1", None, (404, "rule_not_found")),
    ("POST", "/users", {"name": "a"}, (400, "password_missing")),
    ("POST", "/users", {"name": "a", "password": "short"}, (400, "invalid_password")),
    ("POST", "/users", {"name": "a/b", "password": "long enough"}, (400, "invalid_user_name")),
    ("POST", "/users", {"name": "a\nb", "password": "long enough"}, (422, "malformed_payload")),
    ("POST", "/users", {"name": "DEMO", "password": "long enough"}, (409, "user_exists")),
    ("POST", "/users", {"name": "a", "password": "long enough", "certificates": [" "]}, (400, "invalid_certificate_name")),
    ("POST", "/users", {"name": "a", "password": "long enough", "certificates": ["x", "X\n"]}, (422, "malformed_payload")),
    ("PUT", "/listeners/auth/authentication", {"mechanisms": []}, (400, "mechanism_missing")),
    ("PUT", "/listeners/auth/authentication", {"mechanisms": ["CRAM-MD5"]}, (422, "malformed_payload")),
    ("PUT", "/listeners/auth/tls", {"use": "off"}, (400, "tls_needed")),
    ("PUT", "/listeners/auth/tls", {"min_version": "1.1"}, (422, "malformed_payload")),
    ("PUT", "/listeners/anon/tls", {"ciphers": "none"}, (422, "malformed_payload")),
    ("DELETE", "/users/nobody", None, (404, "user_not_found")),
    ("PUT", "/listeners/anon/limits", {"max_recipients": 0}, (422, "malformed_payload")),
    ("PUT", "/listeners/anon/limits", {"max_message_bytes": 10, "max_session_bytes": 9}, (400, "session_below_message")),
    ("PUT", "/listeners/anon/access", {"entries": [{"action": "deny", "who": "192.0.2.1/24"}]}, (400, "invalid_network")),
    ("PUT", "/listeners/anon/access", {"entries": [{"action": "deny", "who": "192.0.2.256"}]}, (400, "invalid_client")),
    ("PUT", "/listeners/anon/access", {"entries": [{"action": "deny", "who": "a*.example"}]}, (400, "invalid_client")),
    ("PUT", "/listeners/anon/access", {"entries": [{"action": "drop", "who": "a.example"}]}, (422, "malformed_payload")),
    ("PUT", "/listeners/anon/reverse_dns", {"mode": "on"}, (422, "malformed_payload")),
    ("PUT", "/listeners/anon/proxy", {"trusted_networks": ["lb.example"]}, (400, "invalid_network")),
    ("PUT", "/listeners/other/limits", {}, (422, "malformed_payload")),
    ("PUT", "/listeners/anon/other", {}, (404, "not_found")),
    ("PUT", "/listeners/anon/identity", {"hostname": "no host"}, (400, "invalid_domain")),
    ("PUT", "/settings", {"hostname": "no host"}, (400, "invalid_domain")),
    ("PUT", "/settings", {"hostname": "mx.example", "postmaster": "nobody"}, (400, "invalid_address")),
    ("PUT", "/schedule", {"intervals_s": []}, (422, "malformed_payload")),
    ("PUT", "/screening/unscannable", {"malformed": "refuse"}, (422, "malformed_payload")),
    ("PUT", "/screening/unscannable", {"poison": "pass"}, (422, "malformed_payload")),
    ("PUT", "/schedule", {"intervals_s": [-1]}, (422, "malformed_payload")),
    ("POST", "/revisions/99/rollback", None, (404, "revision_not_found")),
    ("GET", "/revisions/1/diff/99", None, (404, "revision_not_found")),
    ("GET", "/nothing", None, (404, "not_found")),
]


async def test_what_makes_no_policy_is_refused_with_a_stable_name(api: RunningApi) -> None:
    for method, path, body, expected in REFUSALS:
        answer = await api.client.request(method, path, json=body)
        assert error_of(answer) == expected, (method, path, body)
    assert (await api.get("/revisions"))["newest"] == 1


async def test_a_malformed_payload_is_not_repeated_in_the_answer(api: RunningApi) -> None:
    answer = await api.client.post("/users", json={"name": "a", "password": ["a secret"]})
    assert answer.status_code == 422
    assert "a secret" not in answer.text


async def test_routes_their_default_and_their_consumers(api: RunningApi) -> None:
    body = {
        "name": "other",
        "smart_hosts": [{"host": "MAIL.example.com"}, {"host": "2001:db8::1", "port": 2525}],
        "default": True,
        "timeout_s": 900,
    }
    made = (await api.client.post("/routes", json=body)).raise_for_status().json()
    assert [host["host"] for host in made["smart_hosts"]] == ["mail.example.com", "[2001:db8::1]"]
    assert {route["name"]: route["default"] for route in await api.get("/routes")} == {"main": False, "other": True}
    assert delivery_consumer("other") in await api.bus.consumer_names("OUTBOUND")
    delivery = await section(api, "delivery", DeliveryPolicy)
    assert delivery.default_route == "other"
    assert delivery.routes[1].next_hops[1].host == "2001:db8::1"
    assert [route.timeout_s for route in delivery.routes] == [600, 900]
    # what was read can be written back
    assert (await api.client.put("/routes/other", json=await api.get("/routes/other"))).json() == made
    (await api.client.post("/domains", json={"pattern": "b.example", "route": "main"})).raise_for_status()
    assert error_of(await api.client.delete("/routes/main")) == (409, "route_in_use")
    (await api.client.delete("/domains/b.example")).raise_for_status()
    (await api.client.delete("/routes/main")).raise_for_status()
    assert delivery_consumer("main") in await api.bus.consumer_names("OUTBOUND")  # it may still hold mail


async def test_a_smart_hosts_password_goes_to_delivery_alone(api: RunningApi) -> None:
    body = {
        "name": "paid",
        "smart_hosts": [{"host": "h.example"}],
        "tls": "verify",
        "user": "u",
        "password": "a smart host's secret",
    }
    made = (await api.client.post("/routes", json=body)).raise_for_status()
    assert made.json()["password_set"] is True
    delivery = await api.broker.connect("delivery")
    stored = await delivery.kv_get("SECRETS", "route.paid")
    assert stored is not None
    assert msgspec.json.decode(stored, type=RouteSecret) == RouteSecret(user="u", password="a smart host's secret")
    # changed without a password it stays; with another user it is asked for
    changed = {name: value for name, value in body.items() if name != "password"} | {"max_connections": 3}
    assert (await api.client.put("/routes/paid", json=changed)).json()["password_set"] is True
    assert await delivery.kv_get("SECRETS", "route.paid") == stored
    assert error_of(await api.client.put("/routes/paid", json=changed | {"user": "v"})) == (400, "password_missing")
    for path in ("/routes", "/revisions/2", "/audit", "/revisions/1/diff/3"):
        assert "smart host's secret" not in (await api.client.get(path)).text
    (await api.client.delete("/routes/paid")).raise_for_status()
    assert await delivery.kv_get("SECRETS", "route.paid") is None
    # a rollback brings the route back, not the password, and says so
    rolled = (await api.client.post("/revisions/3/rollback")).raise_for_status().json()
    assert any("route paid" in warning for warning in rolled["warnings"])
    assert (await api.get("/routes/paid"))["password_set"] is False
    await delivery.close()


async def test_rules_keep_their_order(api: RunningApi) -> None:
    ids = []
    for condition in (
        {"type": "sender", "patterns": ["*.Bulk.example", "Spam@Example.org", "*.bulk.example"]},
        {"type": "attachment", "match": "extension", "values": [".exe", "scr"]},
        {"type": "keyword", "phrases": ["wire transfer"], "scope": "body", "whole_word": True},
    ):
        made = await api.client.post("/rules", json={"name": "r", "condition": condition, "action": "hold"})
        ids.append(made.raise_for_status().json()["id"])
    screening = await section(api, "screening", ScreeningPolicy)
    assert [rule.id for rule in screening.rules] == ids
    assert screening.rules[0].condition.patterns == ("*.bulk.example", "Spam@example.org")
    assert screening.rules[1].condition.values == ("exe", "scr")
    order = [ids[2], ids[0], ids[1]]
    (await api.client.put("/rules/order", json={"ids": order})).raise_for_status()
    assert [rule["id"] for rule in await api.get("/rules")] == order
    shown = await api.get(f"/rules/{ids[0]}")
    (await api.client.put(f"/rules/{ids[0]}", json=shown | {"mode": "off"})).raise_for_status()
    assert [rule.id for rule in (await section(api, "screening", ScreeningPolicy)).rules] == [ids[2], ids[1]]
    (await api.client.delete(f"/rules/{ids[2]}")).raise_for_status()
    assert [rule["id"] for rule in await api.get("/rules")] == [ids[0], ids[1]]


async def test_an_smtp_users_password_is_an_argon2id_hash_and_nowhere_else(api: RunningApi) -> None:
    gate = await api.broker.connect("ingress-auth")

    async def user(name: str) -> SmtpUser | None:
        value = await gate.kv_get("USERS", user_key(name))
        return msgspec.json.decode(value, type=SmtpUser) if value else None

    (await api.client.post("/users", json={"name": "Alice", "password": "first password"})).raise_for_status()
    first = await user("alice")
    assert first is not None
    assert first.password_hash.startswith("$argon2id$")
    assert argon2.PasswordHasher().verify(first.password_hash, "first password")
    (await api.client.put("/users/alice", json={"name": "Alice", "enabled": False})).raise_for_status()
    disabled = await user("alice")
    assert disabled == msgspec.structs.replace(first, enabled=False)
    (await api.client.put("/users/ALICE", json={"name": "Alice", "password": "second password"})).raise_for_status()
    second = await user("alice")
    assert second is not None
    assert second.enabled
    assert argon2.PasswordHasher().verify(second.password_hash, "second password")
    for path in ("/users", "/users/alice", "/revisions/2", "/audit"):
        text = (await api.client.get(path)).text
        assert "argon2" not in text
        assert 'password"' not in text
    (await api.client.delete("/users/alice")).raise_for_status()
    assert await user("alice") is None
    rolled = (await api.client.post("/revisions/2/rollback")).raise_for_status().json()
    assert any("user Alice" in warning for warning in rolled["warnings"])
    assert await user("alice") is None
    await gate.close()


async def test_each_part_of_a_listener_is_changed_by_itself_and_both_are_shown_with_all_parts(api: RunningApi) -> None:
    body = {"hostname": "MX1.example.", "note": "behind the north firewall"}
    changed = (await api.client.put("/listeners/anon/identity", json=body)).raise_for_status().json()
    assert changed == body | {"hostname": "mx1.example"}
    anon, auth = await api.get("/listeners")
    assert (anon["gate"], anon["parts"]["identity"]) == ("anon", changed)
    assert (auth["gate"], auth["parts"]["identity"]["hostname"]) == ("auth", "")
    assert anon["parts"]["limits"] == await api.get("/listeners/anon/limits")
    gates = await section(api, "gates", GatePolicy)
    assert (gates.anon_listener.identity.hostname, gates.auth_listener.identity.hostname) == ("mx1.example", "")
    objects = {change["object"] for change in (await api.get("/revisions/1/diff/2"))["differences"]}
    assert objects == {"listeners/anon/identity"}


async def test_limits_settings_and_schedule(api: RunningApi) -> None:
    limits = await api.get("/listeners/anon/limits")
    assert limits["max_messages"] == 7
    (
        await api.client.put("/listeners/anon/limits", json=limits | {"max_messages": None, "max_message_bytes": 1000})
    ).raise_for_status()
    gates = await section(api, "gates", GatePolicy)
    assert (gates.anon.max_messages, gates.anon.max_message_bytes, gates.auth.max_messages) == (None, 1000, 20)
    settings = {"hostname": "MX2.example.", "ndr_copy_to": "copies@Example.com", "max_deliveries": 2, "screening_timeout_s": 3}
    (await api.client.put("/settings", json=settings)).raise_for_status()
    assert (await section(api, "gates", GatePolicy)).hostname == "mx2.example"
    assert (await section(api, "screening", ScreeningPolicy)).max_deliveries == 2
    (await api.client.put("/schedule", json={"intervals_s": [0.5, 2], "delay_notice_s": 5, "expiry_s": 9})).raise_for_status()
    delivery = await section(api, "delivery", DeliveryPolicy)
    assert (delivery.schedule.intervals_s, delivery.schedule.delay_notice_s, delivery.schedule.expiry_s) == ((0.5, 2), 5, 9)
    assert delivery.ndr_copy_to == "copies@example.com"


async def test_what_becomes_of_unscannable_mail_is_policy(api: RunningApi) -> None:
    held = dict.fromkeys(("malformed", "encrypted", "limit", "incomplete", "poison"), "hold")
    assert await api.get("/screening/unscannable") == held
    answer = await api.client.put(
        "/screening/unscannable", json={"encrypted": "pass", "incomplete": "delete", "poison": "delete"}
    )
    wanted = held | {"encrypted": "pass", "incomplete": "delete", "poison": "delete"}
    assert answer.json() == await api.get("/screening/unscannable") == wanted
    screening = await section(api, "screening", ScreeningPolicy)
    assert screening.unscannable == UnscannablePolicy(
        encrypted=UnscannableAction.PASS, incomplete=UnscannableAction.DELETE, poison=UnscannableAction.DELETE
    )
    assert '"screening/unscannable"' in (await api.client.get("/audit")).text


async def test_who_may_connect_is_kept_in_one_form(api: RunningApi) -> None:
    wanted = {
        "entries": [
            {"action": "deny", "who": "::ffff:192.0.2.1"},
            {"action": "allow", "who": "*.Partner.EXAMPLE"},
            {"action": "allow", "who": "2001:DB8::/32"},
        ],
        "otherwise": "deny",
    }
    answer = await api.client.put("/listeners/anon/access", json=wanted)
    assert [entry["who"] for entry in answer.json()["entries"]] == ["192.0.2.1/32", "*.partner.example", "2001:db8::/32"]
    (await api.client.put("/listeners/anon/reverse_dns", json={"mode": "refuse"})).raise_for_status()
    (await api.client.put("/listeners/auth/proxy", json={"trusted_networks": ["192.0.2.10/32"]})).raise_for_status()
    gates = await section(api, "gates", GatePolicy)
    assert [(entry.action.value, entry.who) for entry in gates.anon_listener.access.entries] == [
        ("deny", "192.0.2.1/32"),
        ("allow", "*.partner.example"),
        ("allow", "2001:db8::/32"),
    ]
    assert (gates.anon_listener.access.otherwise.value, gates.anon_listener.reverse_dns.mode.value) == ("deny", "refuse")
    assert gates.auth_listener.proxy.trusted_networks == ("192.0.2.10/32",)
    assert gates.auth_listener.access.entries == ()
    assert await api.get("/listeners/anon/access") == answer.json()


async def test_revisions_differences_and_rollback(api: RunningApi) -> None:
    (await api.client.post("/domains", json={"pattern": "b.example"}, headers={"Postern-Comment": "a merger"})).raise_for_status()
    limits = await api.get("/listeners/auth/limits")
    (await api.client.put("/listeners/auth/limits", json=limits | {"max_hops": 15})).raise_for_status()
    page = await api.get("/revisions")
    assert (page["newest"], page["live"]) == (3, 3)
    assert [(each["number"], each["comment"]) for each in page["revisions"]] == [
        (3, ""),
        (2, "a merger"),
        (1, "the first policy"),
    ]
    assert [each["number"] for each in (await api.get("/revisions", before=3, limit=1))["revisions"]] == [2]
    diff = {each["object"]: each for each in (await api.get("/revisions/1/diff/3"))["differences"]}
    assert set(diff) == {"domains/b.example", "listeners/auth/limits"}
    assert diff["domains/b.example"]["before"] is None
    assert (diff["listeners/auth/limits"]["before"]["max_hops"], diff["listeners/auth/limits"]["after"]["max_hops"]) == (50, 15)
    rolled = await api.client.post("/revisions/1/rollback")
    assert rolled.json() == {"revision": 4, "restored": 1, "warnings": []}
    assert (await api.get("/revisions/1/diff/4"))["differences"] == []
    assert [domain.pattern for domain in (await section(api, "gates", GatePolicy)).relay_domains] == ["relay.example"]
    assert (await api.get("/revisions/2"))["snapshot"]["domains"][1]["pattern"] == "b.example"


async def test_a_change_from_an_outdated_revision_is_refused(api: RunningApi) -> None:
    body = {"pattern": "b.example"}
    assert error_of(await api.client.post("/domains", json=body, headers={"If-Match": "7"})) == (412, "outdated")
    assert (await api.client.post("/domains", json=body, headers={"If-Match": '"1"'})).status_code == 201
    assert error_of(await api.client.delete("/domains/b.example", headers={"If-Match": "1"})) == (412, "outdated")
    assert error_of(await api.client.delete("/domains/b.example", headers={"If-Match": "x"})) == (400, "invalid_if_match")


async def test_reading_the_policy_names_the_revision_to_change_it_from(api: RunningApi) -> None:
    paths = ("/domains", "/domains/relay.example", "/routes", "/routes/main", "/rules", "/users", "/users/demo")
    for path in (*paths, "/listeners/anon/limits", "/settings", "/schedule"):
        assert (await api.client.get(path)).headers["Postern-Revision"] == "1", path
    read = await api.client.get("/listeners/anon/limits")
    seen = {"If-Match": read.headers["Postern-Revision"]}
    (await api.client.put("/listeners/anon/limits", json=read.json() | {"max_hops": 9}, headers=seen)).raise_for_status()
    # somebody else, who had read the same
    assert error_of(await api.client.put("/listeners/anon/limits", json=read.json() | {"max_hops": 8}, headers=seen)) == (
        412,
        "outdated",
    )
    assert (await api.get("/listeners/anon/limits"))["max_hops"] == 9


async def test_a_comment_may_be_in_any_language_on_one_line(api: RunningApi) -> None:
    for k, sent in enumerate(("für alle", "für alle".encode("latin-1"), "全員のため")):
        header = {"Postern-Comment": sent.encode() if isinstance(sent, str) else sent}
        (await api.client.post("/domains", json={"pattern": f"d{k}.example"}, headers=header)).raise_for_status()
    comments = [each["comment"] for each in (await api.get("/revisions"))["revisions"]]
    assert comments[:3] == ["全員のため", "für alle", "für alle"]
    refused = await api.client.post("/domains", json={"pattern": "e.example"}, headers={"Postern-Comment": "a\x85b".encode()})
    assert error_of(refused) == (400, "invalid_comment")


async def test_what_changes_nothing_makes_no_revision(api: RunningApi) -> None:
    same = await api.client.put("/domains/relay.example", json={"pattern": "relay.example"})
    assert (same.status_code, same.headers["Postern-Revision"]) == (200, "1")


async def test_without_a_bootstrap_file_nothing_is_published_until_there_is_a_route(start_api: ApiStarter) -> None:
    api = await start_api()
    assert (await api.get("/settings"))["hostname"] == "mx.first.example"
    saved = await api.client.post("/domains", json={"pattern": "relay.example"})
    assert (saved.status_code, saved.headers["Postern-Live"]) == (202, "false")
    assert await api.bus.kv_get("POLICY", "gates") is None
    status = await api.get("/status")
    assert "no default route" in status["policy"]["problem"]
    ready = await api.client.get(str(api.client.base_url.join("/readyz")))
    assert ready.status_code == 200
    assert "451 4.3.5" in ready.json()["policy"]
    made = await api.client.post("/routes", json={"name": "main", "smart_hosts": [{"host": "h.example"}]})
    assert (made.status_code, made.json()["default"]) == (201, True)
    assert (await section(api, "gates", GatePolicy)).revision == 3


@pytest.mark.parametrize("rule_id", ["order", "a/b", "a b", "A", ""])
def test_a_bootstrap_file_cannot_name_a_rule_that_no_path_reaches(rule_id: str) -> None:
    assert checked_rule_id(new_rule_id())
    with pytest.raises(InvalidError, match="invalid_rule_id"):
        checked_rule_id(rule_id)


async def test_a_bootstrap_file_is_applied_once(start_api: ApiStarter) -> None:
    first = await start_api({"hostname": "mx.one.example", "routes": [{"name": "m", "smart_hosts": [{"host": "h"}]}]})
    (await first.client.put("/settings", json={"hostname": "mx.two.example"})).raise_for_status()
    second = await start_api({"hostname": "mx.three.example"})
    assert (await second.get("/settings"))["hostname"] == "mx.two.example"


async def test_a_saved_change_reaches_the_bus_when_the_broker_is_back(api: RunningApi) -> None:
    api.broker.stop()

    async def away() -> bool:
        return not api.bus.connected

    await eventually(away)
    saved = await api.client.post("/domains", json={"pattern": "b.example"})
    assert (saved.status_code, saved.headers["Postern-Live"], saved.headers["Postern-Revision"]) == (202, "false", "2")
    # a password cannot be kept for later: nothing of that change is saved
    paid = {"name": "paid", "smart_hosts": [{"host": "h"}], "tls": "verify", "user": "u", "password": "p"}
    assert error_of(await api.client.post("/routes", json=paid)) == (503, "bus_unavailable")
    assert (await api.get("/revisions"))["newest"] == 2
    api.broker.restart()

    async def live() -> bool:
        return bool((await api.get("/revisions"))["live"] == 2)

    await eventually(live, 30)
    assert (await section(api, "gates", GatePolicy)).revision == 2


async def test_changes_made_at_once_each_get_their_revision(api: RunningApi) -> None:
    answers = await asyncio.gather(*(api.client.post("/domains", json={"pattern": f"d{k}.example"}) for k in range(12)))
    assert {answer.status_code for answer in answers} == {201}
    assert sorted(int(answer.headers["Postern-Revision"]) for answer in answers) == list(range(2, 14))
    assert len((await section(api, "gates", GatePolicy)).relay_domains) == 13


async def test_two_replicas_never_make_the_same_revision(start_api: ApiStarter) -> None:
    one, two = await start_api(BOOTSTRAP), await start_api(BOOTSTRAP)
    answers = await asyncio.gather(
        *(
            api.client.post("/domains", json={"pattern": f"{name}{k}.example"})
            for k in range(6)
            for name, api in (("a", one), ("b", two))
        )
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = [int(answer.headers["Postern-Revision"]) for answer in answers if answer.status_code == 201]
    assert len(made) == len(set(made))
    kept = await one.get("/domains")
    assert len(kept) == 1 + len(made)

    async def live() -> bool:
        return bool((await section(two, "gates", GatePolicy)).revision == 1 + len(made))

    await eventually(live)
