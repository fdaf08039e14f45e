"""An administrator tries rules before they bite: on a message of his own, over the API, with a real screener behind it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, eventually
from fixtures.broker import Broker
from postern_screener.app import serve
from postern_screener.settings import Settings

CAUGHT = b"From: x@sender.example\r\nSubject: Your invoice\r\n\r\nplease wire the money\r\n"
RULE = {"name": "wires", "condition": {"type": "keyword", "phrases": ["wire the money"]}, "action": "hold"}


@pytest.fixture
async def api(broker: Broker, tmp_path: Path) -> AsyncIterator[RunningApi]:
    starter = ApiStarter(broker, tmp_path)
    bus, stop = await broker.connect("screener"), asyncio.Event()
    serving = asyncio.create_task(serve(bus, stop, Settings(**broker.settings("screener").model_dump())))
    try:
        running = await starter(BOOTSTRAP)

        async def screens() -> bool:
            answer = await running.client.post("/screening/test", content=b"\r\n", headers={"Content-Type": "message/rfc822"})
            return answer.status_code == 200

        await eventually(screens, 30)
        yield running
    finally:
        await starter.close()
        stop.set()
        async with asyncio.timeout(15):
            await serving
        await bus.close()


async def result_of(api: RunningApi, body: bytes = CAUGHT, **query: Any) -> Any:
    answer = await api.client.post("/screening/test", content=body, params=query, headers={"Content-Type": "message/rfc822"})
    return answer.raise_for_status().json()


async def test_a_message_is_tried_under_the_policy_in_force_an_earlier_one_and_a_draft(api: RunningApi) -> None:
    before = await result_of(api)
    assert (before["verdict"]["decision"], before["rules"], before["places"], before["draft"]) == ("pass", [], [], False)
    added = (await api.client.post("/rules", json=RULE | {"unless": {"type": "user"}})).raise_for_status()
    rule_id = added.json()["id"]
    found = await result_of(api)
    assert found["revision"] == int(added.headers["Postern-Revision"])
    assert (found["verdict"]["decision"], found["subject"]) == ("hold", "Your invoice")
    (place,) = found["places"]
    assert place == {"rule_ids": [rule_id], "part": "1", "offset": 7, "length": 14, "chain": [], "excerpt": "wire the money"}
    assert [(rule["rule_id"], rule["outcome"]) for rule in found["rules"]] == [(rule_id, "decided")]
    by_user = await result_of(
        api, gate="auth", user="alice", client="2001:db8::1", reverse_path="a@b.example", recipient="c@d.example"
    )
    assert (by_user["verdict"]["decision"], by_user["rules"][0]["outcome"]) == ("pass", "excepted")
    assert (await result_of(api, revision=before["revision"]))["verdict"]["decision"] == "pass"

    draft = {
        "message": base64.b64encode(CAUGHT).decode(),
        "envelope": {"reverse_path": "x@sender.example", "recipients": ["a@relay.example"]},
        "rules": [
            RULE | {"condition": {"type": "keyword", "phrases": ["no such words"]}},
            RULE | {"id": "mine", "action": "delete"},
        ],
    }
    found = (await api.client.post("/screening/test", json=draft)).raise_for_status().json()
    assert (found["draft"], found["verdict"]["decision"]) == (True, "delete")
    assert [(rule["rule_id"], rule["outcome"]) for rule in found["rules"]] == [("draft-1", "failed"), ("mine", "decided")]
    # nothing of it became policy, or mail
    assert [rule["id"] for rule in await api.get("/rules")] == [rule_id]
    assert (await api.get("/messages"))["rows"] == []
    assert (await api.get("/quarantine"))["rows"] == []


@pytest.mark.parametrize(
    ("body", "query", "status", "error"),
    [
        ({"message": "!"}, {}, 422, "malformed_payload"),
        ({"message": ""}, {}, 422, "malformed_payload"),
        (
            {"message": "QQ==", "rules": [RULE | {"condition": {"type": "keyword", "phrases": [" "]}}]},
            {},
            400,
            "invalid_condition",
        ),
        ({"message": "QQ==", "rules": [RULE | {"id": "a"}, RULE | {"id": "a"}]}, {}, 409, "rule_exists"),
        ({"message": "QQ==", "rules": [RULE | {"id": "../x"}]}, {}, 400, "invalid_rule_id"),
        ({"message": "QQ==", "envelope": {"client": "nowhere"}}, {}, 400, "invalid_client"),
        ({"message": "QQ==", "envelope": {"recipients": ["nobody"]}}, {}, 400, "invalid_address"),
        ({"message": "QQ=="}, {"revision": 99}, 404, "revision_not_found"),
        (b"x" * (7 * 1024 * 1024), {}, 413, "message_too_large"),
        (b"x" * (9 * 1024 * 1024), {}, 413, "body_too_large"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_cannot_be_tried_is_refused_by_name(api: RunningApi, body: Any, query: Any, status: int, error: str) -> None:
    if isinstance(body, bytes):
        answer = await api.client.post("/screening/test", content=body, params=query, headers={"Content-Type": "message/rfc822"})
    else:
        answer = await api.client.post("/screening/test", json=body, params=query)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_hostile_mail_is_tried_like_any_other(api: RunningApi) -> None:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(10_000))
    for body in (nested, b"\0" * 1000, b"From: x\r\n" + b"X: y\r\n" * 100_000, b"x" * 5_000_000):
        found = await result_of(api, body)
        assert found["failure"] == ""
        assert found["verdict"]["decision"] in ("pass", "hold")
