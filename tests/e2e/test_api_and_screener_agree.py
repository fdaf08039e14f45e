"""What the api takes as a rule the screener can compile: a policy that it refuses leaves the last one in force, and the administrator's rule without effect."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from postern_api.errors import ApiError
from postern_api.rules.schemas import RuleBody
from postern_api.rules.service import rule_from
from postern_core.policy import Rule, ScreeningPolicy
from postern_core.verdict import Action
from postern_screener.ruleset import compile_policy

# nothing is left of these when they are compared: soft hyphen, fillers, dots, what Windows takes in no file name, directories
NOTHING_LEFT = ["\u00ad", "\u034f", "\u115f", "\u3164", "...", "???", "<>", "/", "\\", "'", "*.", "\uff0e", "\uff0f", ". .", "a/"]
CONDITIONS: list[dict[str, Any]] = [
    *({"type": "attachment", "match": match} for match in ("name", "wildcard", "extension")),
    *({"type": "header", "name": "X-A", "match": match} for match in ("equals", "contains")),
    {"type": "keyword"},
    {"type": "sender"},
    {"type": "recipient"},
    {"type": "user"},
    {"type": "charset"},
]
FIELDS = {"keyword": "phrases", "sender": "patterns", "recipient": "patterns", "user": "names", "charset": "charsets"}


def kept(condition: dict[str, Any], value: str) -> Rule | None:
    """The rule as the screener gets it; None for one that the api refuses."""
    body = condition | {FIELDS.get(condition["type"], "values"): [value]}
    try:
        made = rule_from(RuleBody.model_validate({"name": "n", "condition": body, "action": "hold"}), "r-1")
    except (ApiError, ValidationError):
        return None
    return Rule(id=made.id, name=made.name, condition=made.condition, action=Action.HOLD)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda each: f"{each['type']} {each.get('match', '')}".strip())
@given(st.one_of(st.sampled_from(NOTHING_LEFT), st.text("a.*?/ \u00ad\u3164\u202e\uff0e'\"@", max_size=6), st.text(max_size=10)))
@example("\u3164")
def test_what_the_api_takes_the_screener_compiles(condition: dict[str, Any], value: str) -> None:
    if (rule := kept(condition, value)) is not None:
        compile_policy(ScreeningPolicy(revision=1, rules=(rule,)))


@pytest.mark.parametrize(
    ("condition", "values"),
    [
        ({"type": "attachment", "match": "name"}, ["???", "/", "'", "...", "<>", "\uff0f"]),
        ({"type": "attachment", "match": "extension"}, ["?", "'"]),
        ({"type": "attachment", "match": "wildcard"}, ["...", "\uff0e"]),
        ({"type": "keyword"}, ["\u3164", "\u034f"]),
        ({"type": "header", "name": "X-A", "match": "contains"}, ["\u115f"]),
    ],
)
def test_a_value_of_which_nothing_is_left_when_it_is_compared_is_refused(condition: dict[str, Any], values: list[str]) -> None:
    """Was: the api took it, and every screener refused the whole policy."""
    assert [kept(condition, value) for value in values] == [None] * len(values)
