"""Which mailboxes domains have, through the API: lists in both forms, what cannot be one, and what the gates get of it."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest

from fixtures.api import RunningApi
from postern_core.policy import CalloutRoute, GatePolicy, NextHop, RecipientList, Recipients, decode_section

LIST = "/domains/relay.example/recipients"
TEXT = {"Content-Type": "text/plain; charset=utf-8"}


async def gates(api: RunningApi) -> GatePolicy:
    data = await api.bus.kv_get("POLICY", "gates")
    assert data is not None
    return decode_section(data, GatePolicy)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def test_a_list_is_replaced_changed_read_and_goes_with_its_domain(api: RunningApi) -> None:
    assert await api.get(LIST) == {"addresses": [], "case_sensitive": False}
    put = await api.client.put(LIST, json={"addresses": ["Bob@relay.example", "ann@RELAY.example", "bob@relay.example"]})
    assert put.json() == {"domain": "relay.example", "addresses": 2}
    listed = RecipientList(domain="relay.example", addresses=("ann@relay.example", "bob@relay.example"))
    assert (await gates(api)).recipient_lists == (listed,)
    changes = {"add": ["Carol@relay.example", "ann@relay.example"], "remove": ["BOB@relay.example", "nobody@relay.example"]}
    assert (await api.client.patch(LIST, json=changes)).json()["addresses"] == 2
    assert await api.get(LIST) == {"addresses": ["ann@relay.example", "carol@relay.example"], "case_sensitive": False}
    as_text = await api.client.get(LIST, headers={"Accept": "text/plain"})
    assert as_text.headers["Content-Type"].startswith("text/plain")
    assert as_text.text == "ann@relay.example\ncarol@relay.example\n"
    await api.client.put("/domains/relay.example", json={"pattern": "relay.example", "recipients": "list"})
    assert (await gates(api)).relay_domains[0].recipients is Recipients.LIST
    assert (await api.client.delete("/domains/relay.example")).status_code == 204
    assert (await gates(api)).recipient_lists == ()
    assert error_of(await api.client.get(LIST)) == (404, "domain_not_found")


async def test_a_list_may_be_text(api: RunningApi) -> None:
    text = "\ufeff# mailboxes\r\nann@relay.example\r\n\r\n  Bj\u00f6rn@relay.example  \n"
    put = await api.client.put(LIST, content=text.encode(), headers=TEXT)
    assert put.json() == {"domain": "relay.example", "addresses": 2}
    assert (await api.get(LIST))["addresses"] == ["ann@relay.example", "bj\u00f6rn@relay.example"]
    assert error_of(await api.client.put(LIST, content=b"\xff@relay.example", headers=TEXT)) == (400, "invalid_address")


async def test_where_case_counts_it_stays(api: RunningApi) -> None:
    body = {"addresses": ["Ann@relay.example", "ann@relay.example"], "case_sensitive": True}
    assert (await api.client.put(LIST, json=body)).json()["addresses"] == 2
    assert (await api.client.patch(LIST, json={"remove": ["ann@relay.example"]})).json()["addresses"] == 1
    assert (await gates(api)).recipient_lists[0].addresses == ("Ann@relay.example",)


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("PUT", LIST, {"addresses": ["ann@elsewhere.example"]}, (400, "invalid_address")),
        ("PUT", LIST, {"addresses": ["ann@sub.relay.example"]}, (400, "invalid_address")),
        ("PUT", LIST, {"addresses": ["ann"]}, (400, "invalid_address")),
        ("PUT", LIST, {"addresses": "ann@relay.example"}, (422, "malformed_payload")),
        ("PUT", LIST, {"adresses": []}, (422, "malformed_payload")),
        ("PUT", "/domains/none.example/recipients", {"addresses": []}, (404, "domain_not_found")),
        ("PATCH", LIST, {"add": ["a@relay.example"], "remove": ["A@relay.example"]}, (400, "invalid_address")),
        ("PATCH", "/domains/none.example/recipients", {}, (404, "domain_not_found")),
        ("PUT", "/domains/relay.example", {"pattern": "relay.example", "recipients": "some"}, (422, "malformed_payload")),
    ],
)
async def test_what_cannot_be(api: RunningApi, method: str, path: str, body: Any, error: tuple[int, str]) -> None:
    assert error_of(await api.client.request(method, path, json=body)) == error


async def test_a_hundred_thousand_addresses_fit_and_no_more(api: RunningApi) -> None:
    lines = [f"{n:x}.{random.Random(n).randbytes(8).hex()}@relay.example" for n in range(100_000)]
    assert (await api.client.put(LIST, content="\n".join(lines), headers=TEXT)).json()["addresses"] == 100_000
    assert len((await gates(api)).recipient_lists[0].addresses) == 100_000
    assert error_of(await api.client.patch(LIST, json={"add": ["one.more@relay.example"]})) == (400, "too_many")
    assert error_of(await api.client.put(LIST, content="\n".join([*lines, lines[0]]), headers=TEXT)) == (400, "too_many")
    # the audit log tells of it without repeating it
    entry = (await api.client.get("/audit")).text
    assert len(entry) < 100_000


async def test_what_does_not_fit_a_broker_message_is_refused(api: RunningApi) -> None:
    alphabet, chance = "abcdefghijklmnopqrstuvwxyz0123456789", random.Random(7)
    answers = []
    for pattern in ("*.d1.example", "*.d2.example"):
        await api.client.post("/domains", json={"pattern": pattern})
        labels = (".".join("".join(chance.choices(alphabet, k=62)) for _ in range(3)) for _ in range(30_000))
        text = "\n".join(f"{n}@{name}{pattern[1:]}" for n, name in enumerate(labels))
        answers.append(await api.client.put(f"/domains/{pattern}/recipients", content=text, headers=TEXT))
    assert answers[0].status_code == 200
    assert error_of(answers[1]) == (400, "policy_too_large")
    assert [each.domain for each in (await gates(api)).recipient_lists] == ["*.d1.example"]


async def test_the_gates_get_the_smart_hosts_of_those_who_are_asked_and_no_others(api: RunningApi) -> None:
    await api.client.post(
        "/routes", json={"name": "other", "smart_hosts": [{"host": "other.example", "port": 26}], "use_helo": True}
    )
    assert (await gates(api)).callout_routes == ()
    domain = {"pattern": "called.example", "recipients": "callout", "route": "other"}
    assert (await api.client.post("/domains", json=domain)).status_code == 201
    policy = await gates(api)
    hop = NextHop(host="other.example", port=26)
    assert policy.callout_routes == (CalloutRoute(name="other", next_hops=(hop,), use_helo=True),)
    assert policy.default_route == "main"


async def test_a_route_with_a_password_is_not_asked(api: RunningApi) -> None:
    route = {"name": "private", "smart_hosts": [{"host": "h.example"}], "tls": "verify", "user": "u", "password": "p" * 9}
    assert (await api.client.post("/routes", json=route)).status_code == 201
    domain = {"pattern": "called.example", "recipients": "callout", "route": "private"}
    assert error_of(await api.client.post("/domains", json=domain)) == (400, "callout_needs_password")


async def test_how_recipients_are_verified_is_a_part_of_the_listener(api: RunningApi) -> None:
    path = "/listeners/anon/verification"
    assert (await api.get(path))["when_unavailable"] == "defer"
    assert (await api.client.put(path, json={"when_unavailable": "accept", "max_at_once": 3})).status_code == 200
    part = (await gates(api)).anon_listener.verification
    assert (part.when_unavailable, part.max_at_once, part.timeout_s) == ("accept", 3, 10.0)
    assert error_of(await api.client.put(path, json={"max_at_once": 0})) == (422, "malformed_payload")


async def test_greylisting_is_a_part_of_the_listener(api: RunningApi) -> None:
    path = "/listeners/anon/greylisting"
    assert (await api.get(path))["enabled"] is False
    body = {"enabled": True, "delay_s": 60, "whitelist_after": None, "exempt_networks": ["192.0.2.7", "::ffff:198.51.100.0/120"]}
    assert (await api.client.put(path, json=body)).status_code == 200
    part = (await gates(api)).anon_listener.greylisting
    assert (part.enabled, part.delay_s, part.whitelist_after) == (True, 60.0, None)
    assert part.exempt_networks == ("192.0.2.7/32", "198.51.100.0/24")
    assert error_of(await api.client.put(path, json={"exempt_networks": ["192.0.2.7/24"]})) == (400, "invalid_network")
    assert error_of(await api.client.put(path, json={"delay_s": 200000})) == (400, "window_below_delay")
