"""What a client can do to the api with requests that no program of ours would send."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.api import ADMIN_TOKEN, BOOTSTRAP, ApiStarter, RunningApi

QUEUE_ID = "01j9zq3v5k7wexamp1e0000000"


def error_of(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert set(body) == {"error", "message", "detail"}
    return answer.status_code, body["error"]


async def on_the_wire(api: RunningApi, *pieces: bytes) -> bytes:
    """What comes back before the server hangs up, or for a complete answer."""
    reader, writer = await asyncio.open_connection(api.client.base_url.host, api.client.base_url.port)
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    answer = b""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while b"\r\n\r\n" not in answer and (more := await reader.read(65536)):
                answer += more
    writer.close()
    return answer


async def test_a_header_block_without_end_is_cut_off(api: RunningApi) -> None:
    # without a limit it was kept in memory, 100 MB and more, and nobody needed a token for that
    answer = await on_the_wire(api, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ", *[b"a" * 65536] * 64)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


async def test_who_has_no_token_is_refused_before_his_body_is_read(api: RunningApi) -> None:
    # the body never comes: whoever waited for it would not answer
    head = b"POST /api/v1/domains HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8000000\r\n"
    for token in (b"", b"Authorization: Bearer wrong\r\n"):
        assert (await on_the_wire(api, head + token + b"\r\n{")).startswith(b"HTTP/1.1 401 ")
    malformed = await api.client.post(
        "/domains", content=b"{", headers={"Content-Type": "application/json", "Authorization": "Bearer x"}
    )
    assert error_of(malformed) == (401, "unknown_token")


@pytest.mark.parametrize("header", ["", "Bearer", "bearer", ADMIN_TOKEN, f"Basic {ADMIN_TOKEN}", f"Bearer {ADMIN_TOKEN} x"])
async def test_what_is_no_bearer_token_is_refused(api: RunningApi, header: str) -> None:
    answer = await api.client.get("/domains", headers={"Authorization": header})
    assert answer.status_code == 401
    assert ADMIN_TOKEN not in answer.text


async def test_a_body_over_the_limit_is_refused_however_it_comes(start_api: ApiStarter) -> None:
    api = await start_api(BOOTSTRAP, max_body_bytes=2000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    for content in (b" " * 2001 + b"{}", pieces()):
        answer = await api.client.post("/domains", content=content, headers={"Content-Type": "application/json"})
        assert error_of(answer) == (413, "body_too_large")
    assert (await api.client.post("/domains", json={"pattern": "b.example"})).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"\xff",
        b'{"pattern":"\xff"}',
        b'{"pattern":' + b"9" * 5000 + b"}",
        b"[" * 50_000,
        b'{"\\ud800":1}',
        b'"\\ud800"',
    ],
)
async def test_what_cannot_be_decoded_is_a_malformed_payload(api: RunningApi, body: bytes) -> None:
    answer = await api.client.post("/domains", content=body, headers={"Content-Type": "application/json"})
    assert error_of(answer) == (422, "malformed_payload")


async def test_a_hundred_thousand_mistakes_are_answered_with_the_first(api: RunningApi) -> None:
    phrases = {"name": "r", "action": "hold", "condition": {"type": "keyword", "phrases": [1] * 100_000}}
    for body in (phrases, {f"unknown{k}": 1 for k in range(10_000)}):
        answer = await api.client.post("/rules", json=body)
        assert error_of(answer) == (422, "malformed_payload")
        assert len(answer.content) < 20_000


WRONG_TYPES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/domains", {"pattern": "b.example", "accept": "yes"}),
    ("POST", "/domains", {"pattern": "b.example", "accept": 1}),
    ("POST", "/domains", {"pattern": 7}),
    ("POST", "/routes", {"name": "b", "smart_hosts": [{"host": "h.example", "port": "25"}]}),
    ("POST", "/routes", {"name": "b", "smart_hosts": [{"host": "h.example"}], "default": "false"}),
    ("PUT", "/listeners/anon/limits", {"max_messages": "7"}),
    ("PUT", "/listeners/anon/limits", {"max_messages": True}),
    ("PUT", "/listeners/anon/limits", {"max_messages": 7.5}),
    ("PUT", "/listeners/anon/limits", {"idle_timeout_s": "60"}),
    ("PUT", "/schedule", {"intervals_s": ["60"]}),
    ("PUT", "/settings", {"hostname": "mx.example", "max_deliveries": "4"}),
    ("POST", "/queue/retry", {"all": "yes"}),
    ("POST", "/queue/delete", {"all": True, "with_ndr": 1}),
    ("PUT", "/users/demo", {"name": "demo", "enabled": "off"}),
]


async def test_a_value_of_the_wrong_type_is_refused_not_guessed(api: RunningApi) -> None:
    for method, path, body in WRONG_TYPES:
        assert error_of(await api.client.request(method, path, json=body)) == (422, "malformed_payload"), (path, body)
    assert (await api.get("/revisions"))["newest"] == 1


@pytest.mark.parametrize(
    "token", ["*", ">", "a.b", "%20", "x" * 400, "%00", f"{QUEUE_ID}.1", f"{QUEUE_ID}-*-0", f"{QUEUE_ID}-m-0.>"]
)
async def test_nothing_in_a_path_becomes_a_wildcard_or_a_second_token_of_a_subject(api: RunningApi, token: str) -> None:
    for method, path in (
        ("GET", "/messages/"),
        ("GET", "/queue/"),
        ("GET", "/quarantine/"),
        ("DELETE", "/quarantine/"),
        ("DELETE", "/badmail/"),
        ("GET", "/routes/"),
        ("DELETE", "/routes/"),
        ("GET", "/users/"),
        ("DELETE", "/users/"),
    ):
        answer = await api.client.request(method, path + token)
        assert answer.status_code in (400, 404, 422), (method, path, token, answer.text)
    body = {"name": token, "smart_hosts": [{"host": "h.example"}]}
    assert (await api.client.post("/routes", json=body)).status_code in (400, 422)
    for selection in ({"queue_id": token}, {"job_id": token}):
        refused = await api.client.post("/queue/delete", json=selection)
        assert refused.status_code in (400, 422), (selection, refused.text)
    assert await api.get("/audit", target="queue") == {"entries": []}


async def test_a_moment_beyond_the_calendar_is_refused(api: RunningApi) -> None:
    for since in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        assert error_of(await api.client.get("/ledger", params={"since": since})) == (400, "invalid_since")
        assert error_of(await api.client.get("/ledger/hours", params={"until": since})) == (400, "invalid_period")


async def test_the_hours_of_the_ledger_are_bounded(api: RunningApi) -> None:
    whole = {"since": "2026-03-01T09:59:59Z", "until": "2026-04-01T10:00:00+01:00"}
    assert await api.get("/ledger/hours", **whole) == {
        "since": "2026-03-01T09:00:00Z",
        "until": "2026-04-01T09:00:00Z",
        "rows": [],
    }
    for changed in ({"until": "2026-04-01T09:00:01Z"}, {"until": "2026-03-01T09:00:00Z"}, {"since": "2026-04-01T09:00:00Z"}):
        assert error_of(await api.client.get("/ledger/hours", params=whole | changed)) == (400, "invalid_period"), changed
    assert (await api.client.get("/ledger/hours", params={"since": "2026-03-01T09:00:00"})).status_code == 422  # no time zone
    for grace in ("0", "-1", "nan", "inf", "601"):
        assert (await api.client.get("/ledger/verification", params={"grace_s": grace})).status_code == 422, grace


async def test_no_search_text_reaches_the_database_that_it_cannot_hold(start_api: ApiStarter, postgres_url: str) -> None:
    # PostgreSQL's text holds no NUL: the answer was 500
    api = await start_api(BOOTSTRAP, database_url=postgres_url)
    for path in (
        "/audit?actor=%00",
        "/audit?target=%00",
        "/messages?sender=%00",
        "/messages?recipient=%00",
        "/quarantine?subject=%00",
        "/quarantine?rule_id=%00",
    ):
        assert error_of(await api.client.get(path)) == (422, "malformed_payload"), path
    assert error_of(await api.client.delete("/tokens/%00")) == (422, "malformed_payload")


async def test_answers_are_not_cached_and_not_guessed_at(api: RunningApi) -> None:
    for path in ("/tokens", "/domains/nowhere.example", "/nothing"):
        headers = (await api.client.get(path)).headers
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff"), path


async def test_the_page_of_the_api_loads_nothing_from_anywhere(api: RunningApi) -> None:
    answer = await api.client.get(str(api.client.base_url.join("/docs")))
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    shown = answer.text
    for example in ("https://alerts.example.com/postern", "http://rspamd:11333"):  # as text
        shown = shown.replace(f"&quot;{example}&quot;", "")
    for sign in ("<script", "src=", "<link", "http://", "https://"):
        assert sign not in shown
    for path, item in api.api.web.openapi()["paths"].items():
        for method in item:
            assert f"<code>{method.upper()} {path}</code>" in answer.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


async def test_no_request_makes_the_api_fail_and_every_answer_is_a_declared_one(api: RunningApi) -> None:
    document = api.api.web.openapi()
    schemas = document["components"]["schemas"]
    endpoints = [(method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()]

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        method, path, operation = data.draw(st.sampled_from(endpoints))
        params = {}
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                known = st.sampled_from([QUEUE_ID, "main", "demo", "relay.example", "anon", "1", "order", f"{QUEUE_ID}-main-0"])
                text = data.draw(known | st.text(min_size=1, max_size=30).filter(lambda text: text.strip("./")))
                path = path.replace(f"{{{parameter['name']}}}", quote(text, safe=""))
            elif parameter["in"] == "query" and data.draw(st.booleans()):
                params[parameter["name"]] = data.draw(st.text(max_size=20) | st.integers().map(str))
        body: Any = None
        content: str | bytes | None = None
        media_type = "application/json"
        taken = operation["requestBody"]["content"] if "requestBody" in operation else {}
        if taken and media_type not in taken:
            media_type = data.draw(st.sampled_from(sorted(taken)))
            content = data.draw(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
        elif taken:
            reference = taken[media_type]["schema"]["$ref"]
            example = data.draw(st.sampled_from(schemas[reference.rpartition("/")[2]]["examples"]))
            changed = data.draw(st.dictionaries(st.sampled_from([*example, "unknown"]), JSON, max_size=2))
            body = data.draw(st.just(example | changed) | JSON)
            content = json.dumps(body)
        answer = client.request(method, path, params=params, content=content, headers=headers | {"Content-Type": media_type})
        if answer.status_code == 404 and answer.json()["error"] == "not_found":
            return  # a '/' in a name leads nowhere
        assert str(answer.status_code) in operation["responses"], (method, path, params, body, answer.text)
        if answer.status_code >= 400 and path.startswith("/api/"):
            error_of(answer)

    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    with httpx.Client(base_url=api.client.base_url.join("/"), timeout=20) as client:
        await asyncio.to_thread(ask)
