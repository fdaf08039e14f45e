"""Rules with joined conditions, exceptions and modes: what the api takes, shows and publishes."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.api import RunningApi
from postern_core.envelope import Gate
from postern_core.policy import (
    AllOf,
    AnyOf,
    ClientCondition,
    DirectionCondition,
    KeywordCondition,
    Not,
    Rule,
    RuleMode,
    ScreeningPolicy,
    SenderCondition,
    decode_section,
)


async def rules_in_force(api: RunningApi) -> tuple[Rule, ...]:
    data = await api.bus.kv_get("POLICY", "screening")
    assert data is not None
    return decode_section(data, ScreeningPolicy).rules


WORD = {"type": "keyword", "phrases": ["alpha"], "scope": "both", "whole_word": False}
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
            {"type": "any", "of": [{"type": "client", "networks": ["192.0.2.7/32"]}, {"type": "not", "of": WORD}]},
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


async def test_phrases_anywhere_in_a_condition_count(api: RunningApi) -> None:
    many = [str(n) for n in range(60_000)]
    halves = [{"type": "keyword", "phrases": many}, {"type": "sender", "patterns": [f"d{n}.example" for n in many]}]
    answer = await api.client.post("/rules", json=RULE | {"condition": {"type": "all", "of": halves}})
    assert (answer.status_code, answer.json()["error"]) == (400, "too_many")
