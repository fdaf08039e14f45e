"""Named lists through the API: in both forms, by whom they are named, what the screener gets of them, and what cannot be."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest

from fixtures.api import RunningApi
from postern_core.policy import ListKind, NamedList, ScreeningPolicy, decode_section

TEXT = {"Content-Type": "text/plain; charset=utf-8"}
BULK: dict[str, Any] = {
    "name": "bulk",
    "kind": "senders",
    "description": "they write to everybody",
    "values": ["*.Bulk.example", "spam@EXAMPLE.org", "*.bulk.example"],
}
RULE: dict[str, Any] = {"name": "bulk", "condition": {"type": "sender", "lists": ["bulk"]}, "action": "delete"}
ADDED: dict[str, Any] = {"name": "bulk", "kind": "senders", "description": BULK["description"], "values": 2, "used_by": []}


async def screening(api: RunningApi) -> ScreeningPolicy:
    data = await api.bus.kv_get("POLICY", "screening")
    assert data is not None
    return decode_section(data, ScreeningPolicy)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    assert "Traceback" not in answer.text
    return answer.status_code, answer.json()["error"]


async def test_a_list_is_made_named_changed_and_goes_only_when_nobody_names_it(api: RunningApi) -> None:
    assert (await api.client.post("/lists", json=BULK)).json() == ADDED
    assert (await screening(api)).lists == ()  # nobody names it yet
    rule = (await api.client.post("/rules", json=RULE)).raise_for_status().json()
    assert rule["condition"] == {"type": "sender", "patterns": [], "lists": ["bulk"]}
    assert (await screening(api)).lists == (
        NamedList(name="bulk", kind=ListKind.SENDERS, text="*.bulk.example\nspam@example.org"),
    )
    assert await api.get("/lists") == [ADDED | {"used_by": [rule["id"]]}]
    shown = await api.get("/lists/bulk")
    assert shown == BULK | {"values": ["*.bulk.example", "spam@example.org"]}
    # what is shown can be sent back, and changes nothing
    before = (await api.client.get("/lists")).headers["Postern-Revision"]
    assert (await api.client.put("/lists/bulk", json=shown)).headers["Postern-Revision"] == before
    change = {"add": ["*.more.example", "spam@example.org"], "remove": ["*.BULK.example", "nobody.example"]}
    assert (await api.client.patch("/lists/bulk", json=change)).json()["values"] == 2
    assert (await screening(api)).lists[0].text == "spam@example.org\n*.more.example"
    gone = await api.client.delete("/lists/bulk")
    assert error_of(gone) == (409, "list_in_use")
    assert rule["id"] in gone.json()["message"]
    off = rule | {"mode": "off"}
    assert (await api.client.put(f"/rules/{rule['id']}", json=off)).status_code == 200
    assert (await screening(api)).lists == ()
    assert error_of(await api.client.delete("/lists/bulk")) == (409, "list_in_use")
    assert (await api.client.delete(f"/rules/{rule['id']}")).status_code == 204
    assert (await api.client.delete("/lists/bulk")).status_code == 204
    assert error_of(await api.client.get("/lists/bulk")) == (404, "list_not_found")


async def test_what_is_exported_can_be_imported(api: RunningApi) -> None:
    words = {"name": "words", "kind": "phrases", "values": ["# no comment", "two  words", "größe", "-x"]}
    assert (await api.client.post("/lists", json=words)).status_code == 201
    exported = await api.client.get("/lists/words", headers={"Accept": "text/plain"})
    assert exported.headers["Content-Type"].startswith("text/plain")
    assert exported.text == "# no comment\ntwo  words\ngröße\n-x\n"
    before = exported.headers["Postern-Revision"]
    again = await api.client.put("/lists/words", content=exported.content, headers=TEXT)
    assert (again.json()["values"], again.headers["Postern-Revision"]) == (4, before)
    windows = "\ufeff one\r\n\r\ntwo\r\ntwo\r\n".encode()
    assert (await api.client.put("/lists/words", content=windows, headers=TEXT)).json()["values"] == 2
    assert (await api.get("/lists/words"))["values"] == ["one", "two"]
    assert error_of(await api.client.put("/lists/words", content=b"\xff", headers=TEXT)) == (400, "invalid_condition")
    assert error_of(await api.client.put("/lists/words", content=b"a\x00b", headers=TEXT)) == (400, "invalid_condition")
    assert error_of(await api.client.put("/lists/none", content=b"a", headers=TEXT)) == (404, "list_not_found")
    assert (await api.client.put("/lists/words", content=b"", headers=TEXT)).json()["values"] == 0
    assert (await api.client.get("/lists/words", headers={"Accept": "text/plain"})).text == ""


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        ("phrases", "  Lottery ", "Lottery"),
        ("expressions", " a+b ", " a+b "),
        ("senders", "Bücher.example", "xn--bcher-kva.example"),
        ("networks", "192.0.2.1", "192.0.2.1/32"),
        ("users", "Ann", "Ann"),
        ("extensions", "*.EXE", "EXE"),
        ("file-names", "invoice.pdf", "invoice.pdf"),
    ],
)
async def test_every_kind_keeps_its_values_in_its_own_form(api: RunningApi, kind: str, value: str, kept: str) -> None:
    assert (await api.client.post("/lists", json={"name": "l", "kind": kind, "values": [value]})).status_code == 201
    assert (await api.get("/lists/l"))["values"] == [kept]


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("POST", "/lists", BULK, (409, "list_exists")),
        ("POST", "/lists", BULK | {"name": "Upper"}, (422, "malformed_payload")),
        ("POST", "/lists", BULK | {"name": "a/b"}, (422, "malformed_payload")),
        ("POST", "/lists", BULK | {"name": "other", "kind": "things"}, (422, "malformed_payload")),
        ("POST", "/lists", {"name": "other"}, (422, "malformed_payload")),
        ("POST", "/lists", [1], (422, "malformed_payload")),
        ("POST", "/lists", BULK | {"name": "other", "values": ["not a domain"]}, (400, "invalid_domain")),
        ("POST", "/lists", {"name": "n", "kind": "networks", "values": ["192.0.2.1/24"]}, (400, "invalid_network")),
        ("POST", "/lists", {"name": "n", "kind": "extensions", "values": ["tar.gz"]}, (400, "invalid_condition")),
        ("POST", "/lists", {"name": "n", "kind": "phrases", "values": [" "]}, (400, "invalid_condition")),
        ("POST", "/lists", {"name": "n", "kind": "expressions", "values": ["("]}, (400, "invalid_expression")),
        ("PUT", "/lists/bulk", BULK | {"kind": "phrases"}, (409, "list_kind_stays")),
        ("PUT", "/lists/bulk", BULK | {"name": "other"}, (400, "name_differs")),
        ("PUT", "/lists/none", BULK | {"name": "none"}, (404, "list_not_found")),
        ("PATCH", "/lists/none", {}, (404, "list_not_found")),
        ("PATCH", "/lists/bulk", {"add": ["a.example"], "remove": ["A.example"]}, (400, "invalid_condition")),
        ("DELETE", "/lists/none", None, (404, "list_not_found")),
        ("POST", "/rules", RULE | {"condition": {"type": "sender", "lists": ["none"]}}, (400, "unknown_list")),
        ("POST", "/rules", RULE | {"unless": {"type": "keyword", "lists": ["bulk"]}}, (400, "wrong_list_kind")),
        ("POST", "/rules", RULE | {"condition": {"type": "client", "lists": ["bulk"]}}, (400, "wrong_list_kind")),
        ("POST", "/rules", RULE | {"condition": {"type": "sender"}}, (400, "invalid_condition")),
    ],
)
async def test_what_cannot_be(api: RunningApi, method: str, path: str, body: Any, error: tuple[int, str]) -> None:
    (await api.client.post("/lists", json=BULK)).raise_for_status()
    before = await api.get("/revisions")
    assert error_of(await api.client.request(method, path, json=body)) == error
    assert await api.get("/revisions") == before


async def test_a_hundred_thousand_values_fit_and_no_more(api: RunningApi) -> None:
    (await api.client.post("/lists", json={"name": "words", "kind": "phrases"})).raise_for_status()
    lines = [f"{n:x} {random.Random(n).randbytes(6).hex()}" for n in range(100_000)]
    assert (await api.client.put("/lists/words", content="\n".join(lines), headers=TEXT)).json()["values"] == 100_000
    rules = [RULE | {"condition": {"type": "keyword", "lists": ["words"], "scope": scope}} for scope in ("header", "body")]
    for rule in rules:  # which share it
        assert (await api.client.post("/rules", json=rule)).status_code == 201
    assert [each.count for each in (await screening(api)).lists] == [100_000]
    more = RULE | {"condition": {"type": "keyword", "phrases": ["one more"]}}
    assert error_of(await api.client.post("/rules", json=more)) == (400, "too_many")
    assert error_of(await api.client.patch("/lists/words", json={"add": ["one more"]})) == (400, "too_many")
    assert error_of(await api.client.put("/lists/words", content="\n".join([*lines, "x"]), headers=TEXT)) == (400, "too_many")
    # another kind has its own hundred thousand
    senders = "\n".join(f"d{n}.example" for n in range(100_000))
    (await api.client.post("/lists", json={"name": "s", "kind": "senders"})).raise_for_status()
    assert (await api.client.put("/lists/s", content=senders, headers=TEXT)).status_code == 200
    assert (await api.client.post("/rules", json=RULE | {"condition": {"type": "sender", "lists": ["s"]}})).status_code == 201
    entry = (await api.client.get("/audit")).text
    assert len(entry) < 100_000  # the audit log tells of it without repeating it


async def test_what_does_not_fit_a_broker_message_is_refused_and_nothing_changes(api: RunningApi) -> None:
    chance, alphabet = random.Random(3), "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for name in ("one", "two"):
        (await api.client.post("/lists", json={"name": name, "kind": "phrases"})).raise_for_status()
    rule = RULE | {"condition": {"type": "keyword", "lists": ["one", "two"]}}
    (await api.client.post("/rules", json=rule)).raise_for_status()
    texts = ["\n".join("".join(chance.choices(alphabet, k=900)) for _ in range(6_000)) for _ in range(2)]
    assert (await api.client.put("/lists/one", content=texts[0], headers=TEXT)).json()["values"] == 6_000
    before = await screening(api)
    assert error_of(await api.client.put("/lists/two", content=texts[1], headers=TEXT)) == (400, "policy_too_large")
    assert await screening(api) == before
    assert (await api.get("/lists/two"))["values"] == []


async def test_a_rollback_brings_a_list_back_with_the_rule_that_names_it(api: RunningApi) -> None:
    (await api.client.post("/lists", json=BULK)).raise_for_status()
    rule = (await api.client.post("/rules", json=RULE)).raise_for_status()
    revision = rule.headers["Postern-Revision"]
    (await api.client.delete(f"/rules/{rule.json()['id']}")).raise_for_status()
    (await api.client.delete("/lists/bulk")).raise_for_status()
    (await api.client.post(f"/revisions/{revision}/rollback")).raise_for_status()
    assert [each.name for each in (await screening(api)).lists] == ["bulk"]
    difference = await api.get(f"/revisions/1/diff/{revision}")
    told = next(each for each in difference if each["object"] == "lists/bulk") if isinstance(difference, list) else difference
    assert "*.bulk.example" in str(told)
