"""The verdict of a message as an administrator reads it, and why each rule did not match it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from fixtures.api import RunningApi, an_envelope, eventually, hold
from postern_core.bus import EventSink
from postern_core.events import EventKind
from postern_core.ids import QueueId, new_queue_id
from postern_core.policy import DirectionCondition, KeywordCondition
from postern_core.policy.matching import criterion_key
from postern_core.verdict import Decision, Finding, HoldReason, TextLanguage, Verdict

ALPHA, BETA = (KeywordCondition(phrases=(word,)) for word in ("alpha", "beta"))
RULES: list[dict[str, Any]] = [
    {
        "name": "both",
        "condition": {"type": "all", "of": [{"type": "keyword", "phrases": ["alpha"]}, {"type": "keyword", "phrases": ["beta"]}]},
        "action": "hold",
    },
    {
        "name": "excepted",
        "condition": {"type": "keyword", "phrases": ["alpha"]},
        "unless": {"type": "direction", "gates": ["anon"]},
        "action": "delete",
    },
    {"name": "off", "mode": "off", "condition": {"type": "keyword", "phrases": ["alpha"]}, "action": "hold"},
]


async def with_rules(api: RunningApi) -> tuple[int, list[str]]:
    """The revision that has them, and their ids."""
    ids, revision = [], 0
    for rule in RULES:
        answer = (await api.client.post("/rules", json=rule)).raise_for_status()
        ids.append(answer.json()["id"])
        revision = int(answer.headers["Postern-Revision"])
    return revision, ids


async def screener_tells(api: RunningApi, tell: Callable[[EventSink], None]) -> None:
    bus = await api.broker.connect("screener")
    sink, stop = EventSink(bus, "screener"), asyncio.Event()
    running = asyncio.create_task(sink.run(stop))
    tell(sink)
    stop.set()
    await running
    await bus.close()


async def the_verdict(api: RunningApi, queue_id: QueueId, **query: Any) -> Any:
    async def known() -> Any:
        answer = await api.client.get(f"/messages/{queue_id}/verdict", params=query)
        return None if answer.json().get("error") == "verdict_not_found" else answer

    return await eventually(known)


async def test_of_a_message_that_passed_each_rule_says_what_kept_it_from_matching(api: RunningApi) -> None:
    revision, ids = await with_rules(api)
    queue_id = new_queue_id()
    keys = tuple(criterion_key(c) for c in (ALPHA, DirectionCondition(gates=(an_envelope().gate,))))
    verdict = Verdict(revision=revision, decision=Decision.PASS, criteria=keys, screening_ms=0.25)
    fields: dict[str, Any] = {"decision": "pass", "revision": revision, "ms": 0.25}
    await screener_tells(api, lambda sink: sink.tell(queue_id, EventKind.SCREENED, verdict=verdict, **fields))
    found = (await the_verdict(api, queue_id, why_not=True)).raise_for_status().json()
    assert (found["verdict"]["decision"], found["verdict"]["revision"], found["verdict"]["screening_ms"]) == (
        "pass",
        revision,
        0.25,
    )
    assert [(rule["rule_id"], rule["outcome"], rule["path"]) for rule in found["rules"]] == [
        (ids[0], "failed", "condition.of.1"),
        (ids[1], "excepted", "unless"),
    ]
    assert found["rules"][0]["because"] == "it is not so that the header or body has one of the phrases beta"
    one = (await the_verdict(api, queue_id, why_not=True, rule_id=ids[1])).json()["rules"]
    assert [rule["rule_name"] for rule in one] == ["excepted"]
    unknown = await api.client.get(f"/messages/{queue_id}/verdict", params={"why_not": True, "rule_id": "r-none"})
    assert unknown.json()["error"] == "rule_not_found"
    # the steps of the trace are as short as ever
    (step,) = (await api.get(f"/messages/{queue_id}"))["events"]
    assert step["fields"] == fields


async def test_the_language_that_a_rule_asked_for_is_shown_and_said_to_be_another_one(api: RunningApi) -> None:
    rule = {"name": "ours", "condition": {"type": "language", "languages": ["en"]}, "action": "hold", "mode": "on"}
    made = (await api.client.post("/rules", json=rule)).raise_for_status()
    revision = int(made.headers["Postern-Revision"])
    queue_id = new_queue_id()
    language = TextLanguage(code="de", percent=97, confidence=0.99, letters=640)
    verdict = Verdict(revision=revision, decision=Decision.PASS, language=language)
    await screener_tells(api, lambda sink: sink.tell(queue_id, EventKind.SCREENED, verdict=verdict, decision="pass"))
    found = (await the_verdict(api, queue_id, why_not=True)).raise_for_status().json()
    assert found["verdict"]["language"] == {"code": "de", "percent": 97, "confidence": 0.99, "letters": 640}
    assert found["rules"][0]["because"] == "it is not so that the text is in one of English (en): it is mostly German (de), 97 %"


async def test_an_ordinary_message_has_a_verdict_of_little_and_its_rules_are_told_under_its_own_revision(api: RunningApi) -> None:
    revision, ids = await with_rules(api)
    (await api.client.delete(f"/rules/{ids[0]}")).raise_for_status()  # a later revision, which the message did not see
    queue_id = new_queue_id()
    await screener_tells(api, lambda sink: sink.tell(queue_id, EventKind.SCREENED, decision="pass", revision=revision, ms=0.1))
    found = (await the_verdict(api, queue_id, why_not=True)).raise_for_status().json()
    assert found["verdict"]["findings"] == []
    assert [(rule["outcome"], rule["path"]) for rule in found["rules"]] == [("failed", "condition.of.0"), ("failed", "condition")]
    assert (await api.client.get(f"/messages/{queue_id}/verdict")).json()["rules"] is None


async def test_the_verdict_of_held_mail_is_the_one_in_quarantine(api: RunningApi) -> None:
    screener = await api.broker.connect("screener")
    envelope = an_envelope()
    await hold(screener, envelope)
    await screener.close()
    found = (await the_verdict(api, envelope.id)).raise_for_status().json()
    assert found["at"] is None
    assert found["verdict"]["hold_reason"] == "rule"
    (finding,) = found["verdict"]["findings"]
    assert finding == {
        "continued": False,
        "rule_id": "r-1",
        "rule_name": "a rule",
        "part": "1",
        "offset": 3,
        "length": 0,
        "chain": [],
        "excerpt": "Hello",
        "monitored": False,
    }


async def test_what_cannot_be_told_is_refused_by_name(api: RunningApi) -> None:
    absent = await api.client.get(f"/messages/{'0' * 26}/verdict")
    assert (absent.status_code, absent.json()["error"]) == (404, "verdict_not_found")
    assert (await api.client.get("/messages/x/verdict")).json()["error"] == "invalid_queue_id"
    poison = Verdict(revision=1, decision=Decision.HOLD, hold_reason=HoldReason.POISON, detail="it hung")
    finding = Finding(rule_id="r", rule_name="r", part="1")
    much = Verdict(revision=1, decision=Decision.PASS, criteria=("a",), criteria_cut=True, findings=(finding,))
    for verdict in (poison, much, Verdict(revision=999, decision=Decision.PASS, criteria=("a",))):
        queue_id = new_queue_id()
        await screener_tells(
            api, lambda sink, queue_id=queue_id, verdict=verdict: sink.tell(queue_id, EventKind.SCREENED, verdict=verdict)
        )
        refused = await the_verdict(api, queue_id, why_not=True)
        assert (refused.status_code, refused.json()["error"]) == (409, "not_explained")
        assert (await the_verdict(api, queue_id)).status_code == 200
    queue_id = new_queue_id()
    await screener_tells(api, lambda sink: sink.tell(queue_id, EventKind.SCREENED, decision="of a later version"))
    refused = await the_verdict(api, queue_id)
    assert (refused.status_code, refused.json()["error"]) == (409, "unreadable")


def test_a_verdict_survives_the_trip_through_the_trace() -> None:
    verdict = Verdict(revision=1, decision=Decision.PASS, findings=(Finding(rule_id="r", rule_name="r", part="1", length=3),))
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(verdict)), Verdict) == verdict


async def test_without_a_screener_nothing_can_be_tried_and_that_is_said(api: RunningApi) -> None:
    answer = await api.client.post("/screening/test", content=b"From: x\r\n\r\n", headers={"Content-Type": "message/rfc822"})
    assert (answer.status_code, answer.json()["error"]) == (503, "screener_unavailable")
