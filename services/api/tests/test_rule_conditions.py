"""Rules with joined conditions, exceptions and modes: what the api takes, shows and publishes."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.api import RunningApi
from postern_core.envelope import Gate
from postern_core.policy import (
    AllOf,
    AnyOf,
    AttachmentCondition,
    AttachmentMatch,
    ClientCondition,
    DirectionCondition,
    KeywordCondition,
    Not,
    RecipientCondition,
    Rule,
    RuleMode,
    ScheduleCondition,
    ScreeningPolicy,
    SenderCondition,
    Weekday,
    decode_section,
)


async def rules_in_force(api: RunningApi) -> tuple[Rule, ...]:
    data = await api.bus.kv_get("POLICY", "screening")
    assert data is not None
    return decode_section(data, ScreeningPolicy).rules


WORD = {
    "type": "keyword",
    "phrases": ["alpha"],
    "expressions": [],
    "lists": [],
    "scope": "both",
    "whole_word": False,
    "at_least": 1,
}
CONDITION: dict[str, Any] = {
    "type": "all",
    "of": [
        {"type": "direction", "gates": ["anon"]},
        {"type": "any", "of": [{"type": "client", "networks": ["192.0.2.7"]}, {"type": "not", "of": WORD}]},
    ],
}
RULE: dict[str, Any] = {
    "name": "joined",
    "mode": "monitor",
    "condition": CONDITION,
    "unless": {"type": "sender", "patterns": ["Partner.Example"]},
    "action": "allow",
}


async def test_a_joined_condition_is_kept_shown_and_published(api: RunningApi) -> None:
    made = (await api.client.post("/rules", json=RULE)).raise_for_status().json()
    shown = await api.get(f"/rules/{made['id']}")
    wanted = CONDITION | {
        "of": [
            CONDITION["of"][0],
            {"type": "any", "of": [{"type": "client", "networks": ["192.0.2.7/32"], "lists": []}, {"type": "not", "of": WORD}]},
        ]
    }
    assert (shown["condition"], shown["mode"], shown["action"]) == (wanted, "monitor", "allow")
    [rule] = await rules_in_force(api)
    assert rule.condition == AllOf(
        of=(
            DirectionCondition(gates=(Gate.ANON,)),
            AnyOf(of=(ClientCondition(networks=("192.0.2.7/32",)), Not(of=KeywordCondition(phrases=("alpha",))))),
        )
    )
    assert rule.unless == SenderCondition(patterns=("partner.example",))
    assert rule.mode is RuleMode.MONITOR
    # what is shown can be sent back as it is
    (await api.client.put(f"/rules/{made['id']}", json=shown)).raise_for_status()
    assert await api.get(f"/rules/{made['id']}") == shown
    (await api.client.put(f"/rules/{made['id']}", json=shown | {"mode": "off"})).raise_for_status()
    assert await rules_in_force(api) == ()


async def test_recipients_and_schedules_are_shown_as_they_were_given(api: RunningApi) -> None:
    for condition in (
        {"type": "recipient", "patterns": ["sales-*@example.com"]},
        {"type": "schedule", "timezone": "Europe/Vienna", "days": ["mon", "fri"], "begin": "08:05", "end": "24:00"},
    ):
        made = (await api.client.post("/rules", json=RULE | {"condition": condition})).raise_for_status().json()
        assert made["condition"] == condition


def nested(levels: int) -> dict[str, Any]:
    condition: dict[str, Any] = WORD
    for _ in range(levels):
        condition = {"type": "not", "of": condition}
    return condition


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (nested(8), 201),
        (nested(9), 400),
        (nested(200), 400),
        ({"type": "all", "of": []}, 422),
        ({"type": "all", "of": [WORD] * 101}, 422),
        ({"type": "any", "of": [{"type": "nothing"}]}, 422),
        ({"type": "direction", "gates": ["internal"]}, 422),
        ({"type": "client", "networks": ["192.0.2.7/24"]}, 400),
        ({"type": "message-size", "larger_than_bytes": 0}, 422),
        ({"type": "user", "names": [""]}, 400),
        ({"type": "user"}, 201),
        ({"type": "malformed"}, 201),
        ({"type": "recipient", "patterns": ["sales-*@Example.com", "*.example.com"]}, 201),
        ({"type": "recipient", "patterns": ["*@*"]}, 400),
        ({"type": "schedule", "timezone": "Europe/Vienna", "days": ["mon"], "begin": "22:00", "end": "06:00"}, 201),
        ({"type": "schedule", "timezone": "../../etc/passwd"}, 400),
        ({"type": "schedule", "timezone": ""}, 400),
        ({"type": "schedule", "timezone": "UTC", "begin": "24:00"}, 422),
        ({"type": "schedule", "timezone": "UTC", "days": []}, 422),
        ({"type": "attachment", "match": "wildcard", "values": ["*.pdf.*"], "inside": True}, 201),
        ({"type": "attachment", "match": "wildcard", "values": ["*"]}, 400),
        ({"type": "attachment", "match": "declared-type", "values": ["Image/*"]}, 201),
        ({"type": "attachment", "match": "declared-type", "values": ["pdf"]}, 400),
        ({"type": "attachment", "match": "declared-type", "values": ["image/*"], "inside": True}, 400),
        ({"type": "attachment", "match": "real-type", "values": ["program", "exe"], "inside": True}, 201),
        ({"type": "attachment", "match": "real-type", "values": ["nothing"]}, 400),
        ({"type": "attachment", "match": "real-type"}, 400),
        ({"type": "attachment", "match": "count", "more_than": 20}, 201),
        ({"type": "attachment", "match": "count", "more_than": -1}, 422),
        ({"type": "attachment", "match": "count", "values": ["20"]}, 400),
        ({"type": "attachment", "match": "nesting"}, 201),
        ({"type": "attachment", "match": "nesting", "more_than": 5}, 400),
        ({"type": "attachment", "match": "encrypted"}, 201),
        ({"type": "attachment", "match": "encrypted", "inside": True}, 400),
        ({"type": "attachment", "match": "macro", "values": ["x"]}, 400),
        ({"type": "attachment", "match": "type-mismatch", "inside": True}, 201),
        ({"type": "attachment", "match": "deceptive-name"}, 201),
        ({"type": "attachment", "match": "unopened", "larger_than_bytes": 1}, 400),
        ({"type": "attachment", "match": "size", "larger_than_bytes": 1, "inside": "yes"}, 422),
    ],
)
async def test_conditions_that_are_taken_and_refused(api: RunningApi, condition: dict[str, Any], status: int) -> None:
    answer = await api.client.post("/rules", json=RULE | {"condition": condition})
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text
    before = await api.get("/rules")
    answer = await api.client.post("/rules", json=RULE | {"unless": condition})
    assert answer.status_code == status
    assert len(await api.get("/rules")) == len(before) + (status == 201)


@pytest.mark.parametrize("levels", [900, 3_000, 100_000])
async def test_conditions_that_nest_without_end_are_refused(api: RunningApi, levels: int) -> None:
    condition = '{"type": "not", "of": ' * levels + '{"type": "malformed"}' + "}" * levels
    body = f'{{"name": "deep", "action": "hold", "condition": {condition}}}'
    answer = await api.client.post("/rules", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert await api.get("/rules") == []


async def test_a_condition_on_attachments_is_kept_shown_and_published(api: RunningApi) -> None:
    condition = {"type": "attachment", "match": "real-type", "values": [" Program", "exe"], "inside": True}
    made = (await api.client.post("/rules", json=RULE | {"condition": condition})).raise_for_status().json()
    wanted = condition | {"values": ["program", "exe"], "larger_than_bytes": 0, "more_than": 0, "lists": []}
    assert made["condition"] == wanted
    [rule] = await rules_in_force(api)
    assert rule.condition == AttachmentCondition(match=AttachmentMatch.REAL_TYPE, values=("program", "exe"), inside=True)
    (await api.client.put(f"/rules/{made['id']}", json=made)).raise_for_status()
    unknown = await api.client.post("/rules", json=RULE | {"condition": condition | {"values": ["exa"]}})
    assert (unknown.status_code, unknown.json()["error"]) == (400, "unknown_file_type")
    assert "docx" in unknown.text


async def test_phrases_anywhere_in_a_condition_count(api: RunningApi) -> None:
    many = [str(n) for n in range(60_000)]
    halves = [{"type": "keyword", "phrases": many}, {"type": "keyword", "phrases": many, "scope": "header"}]
    answer = await api.client.post("/rules", json=RULE | {"condition": {"type": "all", "of": halves}})
    assert (answer.status_code, answer.json()["error"]) == (400, "too_many")


SET: dict[str, Any] = {
    "name": "sales",
    "gates": ["anon"],
    "recipients": ["sales.example.com"],
    "schedule": {"type": "schedule", "timezone": "UTC", "days": ["mon"], "begin": "08:00", "end": "17:00"},
    "mode": "on",
    "note": "ask the sales people first",
}


async def test_rules_in_a_set_are_for_its_mail_alone(api: RunningApi) -> None:
    (await api.client.post("/rule-sets", json=SET)).raise_for_status()
    made = (await api.client.post("/rules", json=RULE | {"condition": WORD, "rule_set": "sales"})).raise_for_status().json()
    shown = await api.get("/rule-sets/sales")
    assert shown == SET | {"rules": [made["id"]]}
    assert await api.get("/rule-sets") == [shown]
    [rule] = await rules_in_force(api)
    assert rule.condition == AllOf(
        of=(
            DirectionCondition(gates=(Gate.ANON,)),
            RecipientCondition(patterns=("sales.example.com",)),
            ScheduleCondition(timezone="UTC", days=(Weekday.MONDAY,), begin=480, end=1020),
            KeywordCondition(phrases=("alpha",)),
        )
    )
    del shown["rules"]
    narrower = shown | {"gates": [], "recipients": [], "schedule": None}
    (await api.client.put("/rule-sets/sales", json=narrower)).raise_for_status()
    assert [each.condition for each in await rules_in_force(api)] == [KeywordCondition(phrases=("alpha",))]
    refused = await api.client.delete("/rule-sets/sales")
    assert (refused.status_code, refused.json()["error"]) == (409, "rule_set_in_use")
    (await api.client.delete(f"/rules/{made['id']}")).raise_for_status()
    (await api.client.delete("/rule-sets/sales")).raise_for_status()
    assert (await api.client.get("/rule-sets/sales")).status_code == 404


@pytest.mark.parametrize(
    ("of_set", "of_rule", "mode"),
    [("on", "on", RuleMode.ON), ("on", "monitor", RuleMode.MONITOR), ("monitor", "on", RuleMode.MONITOR), ("off", "on", None)],
)
async def test_the_mode_of_a_set_holds_back_its_rules(api: RunningApi, of_set: str, of_rule: str, mode: RuleMode | None) -> None:
    (await api.client.post("/rule-sets", json=SET | {"mode": of_set})).raise_for_status()
    (await api.client.post("/rules", json=RULE | {"mode": of_rule, "rule_set": "sales"})).raise_for_status()
    assert [rule.mode for rule in await rules_in_force(api)] == ([] if mode is None else [mode])


async def test_wrong_rule_sets_are_refused(api: RunningApi) -> None:
    answer = await api.client.post("/rules", json=RULE | {"rule_set": "nowhere"})
    assert (answer.status_code, answer.json()["error"]) == (400, "unknown_rule_set")
    (await api.client.post("/rule-sets", json=SET)).raise_for_status()
    assert (await api.client.post("/rule-sets", json=SET)).json()["error"] == "rule_set_exists"
    assert (await api.client.put("/rule-sets/sales", json=SET | {"name": "x"})).json()["error"] == "name_differs"
    assert (await api.client.put("/rule-sets/x", json=SET | {"name": "x"})).status_code == 404
    assert (await api.client.put("/rule-sets/sales", json=SET | {"recipients": ["not a domain"]})).json()[
        "error"
    ] == "invalid_pattern"
    assert (await api.client.put("/rule-sets/sales", json=SET | {"name": "sales", "gates": ["internal"]})).status_code == 422
    assert (await api.get("/rule-sets/sales"))["recipients"] == SET["recipients"]


MESSAGE_CONDITIONS: list[dict[str, Any]] = [
    {"type": "header", "name": "X-Mailer", "match": "present", "values": [], "lists": []},
    {"type": "header", "name": "X-Mailer", "match": "contains", "values": ["bulk mailer"], "lists": []},
    {"type": "header", "name": "X-Mailer", "match": "equals", "values": ["bulk"], "lists": []},
    {"type": "header", "name": "X-Mailer", "match": "regex", "values": ["^bulk [0-9]+"], "lists": []},
    {"type": "charset", "charsets": ["koi8-r"]},
    {"type": "script", "scripts": ["cyrillic", "han"], "more_than_percent": 12.5},
    {"type": "language", "languages": ["de", "zh"]},
    {"type": "authentication", "method": "dmarc", "results": ["fail", "permerror"]},
    WORD | {"phrases": ["alpha"], "expressions": [r"\bbeta\b"], "lists": [], "scope": "all", "at_least": 2},
]


@pytest.mark.parametrize("condition", MESSAGE_CONDITIONS)
async def test_conditions_about_the_message_are_kept_as_they_are(api: RunningApi, condition: dict[str, Any]) -> None:
    made = (await api.client.post("/rules", json=RULE | {"condition": condition})).raise_for_status().json()
    assert made["condition"] == condition
    assert len(await rules_in_force(api)) == 1
    (await api.client.put(f"/rules/{made['id']}", json=made)).raise_for_status()
    assert await api.get(f"/rules/{made['id']}") == made


@pytest.mark.parametrize(
    ("condition", "status", "error"),
    [
        ({"type": "header", "name": "X Mailer"}, 400, "invalid_condition"),
        ({"type": "header", "name": "X-Mailer:"}, 400, "invalid_condition"),
        ({"type": "header", "name": "X-Mailer", "values": ["a"]}, 400, "invalid_condition"),
        ({"type": "header", "name": "X-Mailer", "match": "contains"}, 400, "invalid_condition"),
        ({"type": "header", "name": "X-Mailer", "match": "regex", "values": ["(a"]}, 400, "invalid_expression"),
        ({"type": "header", "name": "X-Mailer", "match": "regex", "values": ["a" * 501]}, 400, "invalid_condition"),
        ({"type": "header", "name": "X-Mailer", "match": "like", "values": ["a"]}, 422, "malformed_payload"),
        ({"type": "keyword", "expressions": [r"(a)\1"]}, 400, "invalid_expression"),
        ({"type": "keyword", "expressions": ["a*"]}, 400, "invalid_expression"),
        ({"type": "keyword", "expressions": [""]}, 400, "invalid_condition"),
        ({"type": "keyword", "expressions": [f"x{n}" for n in range(1001)]}, 422, "malformed_payload"),
        ({"type": "keyword"}, 400, "invalid_condition"),
        ({"type": "keyword", "phrases": ["a", "b"], "at_least": 3}, 400, "invalid_condition"),
        ({"type": "keyword", "phrases": ["a", "b"], "at_least": 0}, 422, "malformed_payload"),
        ({"type": "charset", "charsets": []}, 422, "malformed_payload"),
        ({"type": "script", "scripts": ["klingon"]}, 422, "malformed_payload"),
        ({"type": "script", "scripts": ["han"], "more_than_percent": 100}, 422, "malformed_payload"),
        ({"type": "language", "languages": []}, 422, "malformed_payload"),
        ({"type": "authentication", "method": "dmarc", "results": []}, 422, "malformed_payload"),
        ({"type": "authentication", "method": "guess", "results": ["fail"]}, 422, "malformed_payload"),
    ],
)
async def test_conditions_about_the_message_that_make_no_sense(
    api: RunningApi, condition: dict[str, Any], status: int, error: str
) -> None:
    answer = await api.client.post("/rules", json=RULE | {"condition": condition})
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert await rules_in_force(api) == ()


async def test_a_language_that_cannot_be_told_is_named_beside_those_that_can(api: RunningApi) -> None:
    answer = await api.client.post("/rules", json=RULE | {"condition": {"type": "language", "languages": ["de", "Klingon"]}})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_condition")
    assert answer.json()["message"].startswith("'klingon' is no language that can be told; those are af, am, ar, ")


async def test_an_expression_that_does_not_compile_is_named(api: RunningApi) -> None:
    condition = {"type": "keyword", "expressions": ["fine", "(broken"]}
    answer = await api.client.post("/rules", json=RULE | {"condition": condition, "mode": "off"})
    assert answer.status_code == 400
    assert "'(broken'" in answer.json()["message"]
    assert "parenthesis" in answer.json()["message"]
