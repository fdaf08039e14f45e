"""Why a rule did not match, told from what was written down of a message, against the judging of the message itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import Gate
from postern_core.policy import (
    AllOf,
    AnyOf,
    AttachmentCondition,
    AttachmentMatch,
    ClientCondition,
    Condition,
    Criterion,
    DirectionCondition,
    KeywordCondition,
    KeywordScope,
    LanguageCondition,
    MalformedCondition,
    Not,
    Rule,
    RuleMode,
    SenderCondition,
    SizeCondition,
    UserCondition,
)
from postern_core.policy.expressions import expression
from postern_core.policy.matching import LAZY, NumberedRules, criterion_key
from postern_core.policy.why_not import Outcome, RuleOutcome, explain, in_words
from postern_core.verdict import Action

SEARCHED: list[Criterion] = [KeywordCondition(phrases=(word,)) for word in ("alpha", "beta", "gamma")]
LOOKED_AT: list[Criterion] = [DirectionCondition(gates=(Gate.ANON,)), SizeCondition(larger_than_bytes=9), UserCondition()]
EVERY_KIND: list[Criterion] = [
    SenderCondition(patterns=("a.example", "b.example", "c.example", "d.example")),
    AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",)),
    AttachmentCondition(match=AttachmentMatch.SIZE, larger_than_bytes=5),
    KeywordCondition(phrases=("x" * 500,), scope=KeywordScope.BODY),
    DirectionCondition(gates=(Gate.ANON, Gate.AUTH)),
    ClientCondition(networks=("192.0.2.0/24",)),
    UserCondition(names=("ann",)),
    SizeCondition(larger_than_bytes=9),
    MalformedCondition(),
    LanguageCondition(languages=("de", "en", "fr", "zh")),
]

conditions: st.SearchStrategy[Condition] = st.recursive(
    st.sampled_from([*SEARCHED, *LOOKED_AT]),
    lambda inner: st.one_of(
        st.builds(lambda parts: AllOf(of=tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: AnyOf(of=tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: Not(of=part), inner),
    ),
    max_leaves=6,
)


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    made = draw(st.lists(st.tuples(conditions, st.none() | conditions, st.sampled_from(RuleMode)), min_size=1, max_size=5))
    return [
        Rule(id=f"r{n}", name=f"r{n}", condition=condition, unless=unless, mode=mode, action=Action.HOLD)
        for n, (condition, unless, mode) in enumerate(made)
    ]


def screened(rules: list[Rule], true: set[Criterion]) -> tuple[set[str], list[str], set[Criterion]]:
    """As the screener does it: the keys that it writes down, the ids of the rules that match, and the criteria that it looked at."""
    numbered = NumberedRules(rules)
    held = {n for n, criterion in enumerate(numbered.criteria) if criterion in true and not isinstance(criterion, LAZY)}
    looked_at: set[int] = set()

    def holds(n: int) -> bool:
        looked_at.add(n)
        if numbered.criteria[n] in true:
            held.add(n)
            return True
        return False

    matched = [each.rule.id for each in numbered.candidates(frozenset(held)) if each.matches(holds)]
    known = {c for n, c in enumerate(numbered.criteria) if n in looked_at or not isinstance(c, LAZY)}
    return {numbered.key(n) for n in held}, matched, known


def at(rule: Rule, path: str) -> Condition:
    """The condition at this place of the rule."""
    found: Any = rule
    for step in path.split("."):
        found = found[int(step)] if step.isdigit() else getattr(found, step)
    return found  # type: ignore[no-any-return]


@given(rules(), st.sets(st.sampled_from([*SEARCHED, *LOOKED_AT])))
def test_what_is_told_of_each_rule_is_what_the_screener_found(rules: list[Rule], true: set[Criterion]) -> None:
    keys, matched, known = screened(rules, true)
    outcomes = explain(rules, keys)
    assert [each.rule.id for each in outcomes] == [rule.id for rule in rules]
    told = {Outcome.DECIDED, Outcome.MATCHED, Outcome.MONITORED}
    assert [each.rule.id for each in outcomes if each.outcome in told] == matched
    deciding = [rule.id for rule in rules if rule.id in matched and rule.mode is RuleMode.ON][:1]
    assert [each.rule.id for each in outcomes if each.outcome is Outcome.DECIDED] == deciding
    for each in outcomes:
        if each.outcome in (Outcome.FAILED, Outcome.EXCEPTED):
            _is_true_of(each, true, known)


def _is_true_of(told: RuleOutcome, true: set[Criterion], known: set[Criterion]) -> None:
    """The condition that is blamed did fail (or the exception held), whatever the criteria are that nobody looked at."""
    blamed = at(told.rule, told.path)
    numbers: dict[Criterion, int] = {}
    made = expression(blamed, lambda criterion: numbers.setdefault(criterion, len(numbers)))
    criteria = list(numbers)
    judged = made.judge(lambda n: criteria[n] in true if criteria[n] in known else None)
    assert judged is (told.outcome is Outcome.EXCEPTED)
    assert told.because


def test_the_first_condition_that_failed_is_named_with_its_place() -> None:
    alpha, beta, gamma = SEARCHED
    rule = Rule(id="r", name="r", condition=AllOf(of=(alpha, AllOf(of=(beta, gamma)))), action=Action.HOLD)
    (told,) = explain([rule], {criterion_key(alpha), criterion_key(beta)})
    assert (told.outcome, told.path) == (Outcome.FAILED, "condition.of.1.of.1")
    assert told.because == "it is not so that the header or body has one of the phrases gamma"
    (told,) = explain([msgspec.structs.replace(rule, condition=AnyOf(of=(alpha, beta)))], set())
    assert (told.path, told.because.startswith("none of these holds: ")) == ("condition", True)
    (told,) = explain([msgspec.structs.replace(rule, condition=Not(of=alpha))], {criterion_key(alpha)})
    assert told.because == "it must not be so that the header or body has one of the phrases alpha, but it is"
    (told,) = explain([msgspec.structs.replace(rule, condition=alpha, unless=beta)], {criterion_key(alpha), criterion_key(beta)})
    assert (told.outcome, told.path) == (Outcome.EXCEPTED, "unless")
    (told,) = explain([msgspec.structs.replace(rule, condition=alpha)], set(), {criterion_key(alpha)})
    assert (told.outcome, told.because) == (Outcome.UNKNOWN, "")


def test_a_property_that_no_rule_came_to_is_not_blamed() -> None:
    alpha, direction = SEARCHED[0], LOOKED_AT[0]
    rule = Rule(id="r", name="r", condition=AllOf(of=(direction, alpha)), action=Action.HOLD)
    (told,) = explain([rule], set())  # nothing was found, so the screener never looked where it came in
    assert told.path == "condition.of.1"


@pytest.mark.parametrize("criterion", EVERY_KIND, ids=lambda criterion: type(criterion).__name__)
def test_every_kind_has_words_of_bounded_length(criterion: Criterion) -> None:
    words = in_words(criterion)
    assert 8 < len(words) < 400
    assert words.isprintable()
    deep: Condition = criterion
    for _ in range(8):
        deep = AllOf(of=(deep,) * 2)
    assert len(in_words(AllOf(of=(criterion,) * 100))) < 3000


def test_a_key_tells_criteria_apart_and_does_not_change_with_versions() -> None:
    assert criterion_key(KeywordCondition(phrases=("alpha",))) == "6LnmD7dg"  # it stands in records
    assert criterion_key(KeywordCondition(phrases=("alpha",), scope=KeywordScope.BOTH)) == criterion_key(SEARCHED[0])
    assert len({criterion_key(criterion) for criterion in [*EVERY_KIND, *SEARCHED, *LOOKED_AT]}) == len(EVERY_KIND) + 6 - 1

    class SenderCondition2(msgspec.Struct, frozen=True, kw_only=True, tag="sender"):
        patterns: tuple[str, ...]
        added_later: int = 0

    later: Any = SenderCondition2(patterns=("a.example",))
    assert criterion_key(later) == criterion_key(SenderCondition(patterns=("a.example",)))
