"""Conditions that are joined, exceptions and modes: which rules match, which decides, and what the verdict says of the others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import accepted_at, new_queue_id
from postern_core.policy import (
    AllOf,
    AnyOf,
    ClientCondition,
    Condition,
    DirectionCondition,
    KeywordCondition,
    MalformedCondition,
    Not,
    Rule,
    RuleMode,
    ScheduleCondition,
    ScreeningPolicy,
    SenderCondition,
    SizeCondition,
    UserCondition,
    Weekday,
)
from postern_core.policy.conditions import MOST_NESTED, nesting
from postern_core.policy.expressions import expression
from postern_core.verdict import Action, Decision, HoldReason
from postern_screener.checks.properties import is_within
from postern_screener.inspection import Inspection
from postern_screener.ruleset import compile_policy
from postern_screener.screening import Screened, screen

Screens = Callable[..., Screened]
ENVELOPE = Envelope(
    id=(queue_id := new_queue_id()),
    gate=Gate.ANON,
    reverse_path="x@sender.example",
    recipients=(Recipient(n=0, address="a@relay.example"),),
    size_bytes=100,
    accepted_at=accepted_at(queue_id),
    client=Client(address="127.0.0.1"),
)
PLAIN = b"From: x@sender.example\r\nSubject: alpha\r\n\r\nbeta gamma\r\n"
PARTIAL = b"From: x@sender.example\r\nContent-Type: message/partial; id=a; number=1; total=2\r\n\r\nalpha\r\n"


def word(*phrases: str) -> KeywordCondition:
    return KeywordCondition(phrases=phrases)


def a_rule(condition: Condition, *, rule_id: str = "r", action: Action = Action.HOLD, **fields: object) -> Rule:
    return msgspec.structs.replace(Rule(id=rule_id, name=rule_id, condition=condition, action=action), **fields)


HOLDS = [
    AllOf(of=(word("alpha"), word("beta"))),
    AllOf(of=(word("alpha"), Not(of=word("omega")))),
    AnyOf(of=(word("omega"), word("gamma"))),
    Not(of=word("omega")),
    AllOf(of=(SenderCondition(patterns=("sender.example",)), AnyOf(of=(word("omega"), Not(of=word("psi")))))),
]


@pytest.mark.parametrize("condition", HOLDS)
def test_what_joined_conditions_match_their_opposites_do_not(screens: Screens, condition: Condition) -> None:
    assert screens(PLAIN, a_rule(condition)).verdict.decision is Decision.HOLD
    assert screens(PLAIN, a_rule(Not(of=condition))).verdict.decision is Decision.PASS


def test_an_exception_keeps_its_rule_from_matching_and_no_other(screens: Screens) -> None:
    excepted = a_rule(word("alpha"), unless=SenderCondition(patterns=("sender.example",)), rule_id="excepted")
    other = a_rule(word("beta"), rule_id="other", action=Action.DELETE)
    verdict = screens(PLAIN, excepted, other).verdict
    assert verdict.decision is Decision.DELETE
    assert [finding.rule_id for finding in verdict.findings] == ["other"]
    assert (
        screens(PLAIN, excepted, reverse_path="y@other.example").verdict.decision is Decision.PASS
    )  # From: still says who it is
    stranger = PLAIN.replace(b"x@sender", b"x@other")
    assert screens(stranger, excepted, reverse_path="y@other.example").verdict.decision is Decision.HOLD


def test_allow_passes_whatever_later_rules_say_and_not_what_earlier_ones_say(screens: Screens) -> None:
    allow, delete = a_rule(word("alpha"), action=Action.ALLOW), a_rule(word("beta"), rule_id="d", action=Action.DELETE)
    verdict = screens(PLAIN, allow, delete).verdict
    assert verdict.decision is Decision.PASS
    assert verdict.deciding is not None
    assert verdict.deciding.rule_id == "r"
    assert screens(PLAIN, delete, allow).verdict.decision is Decision.DELETE
    assert screens(PLAIN, allow, hold="DMARC").verdict.decision is Decision.PASS
    assert screens(PARTIAL, allow).verdict.decision is Decision.PASS


def test_a_monitoring_rule_is_told_of_and_decides_nothing(screens: Screens) -> None:
    watching = a_rule(word("alpha"), action=Action.DELETE, mode=RuleMode.MONITOR, rule_id="watching")
    verdict = screens(PLAIN, watching).verdict
    assert (verdict.decision, verdict.deciding) == (Decision.PASS, None)
    assert [(finding.rule_id, finding.monitored) for finding in verdict.findings] == [("watching", True)]
    verdict = screens(PLAIN, watching, a_rule(word("beta"))).verdict
    assert verdict.decision is Decision.HOLD
    assert [(finding.rule_id, finding.monitored) for finding in verdict.findings] == [("r", False), ("watching", True)]
    verdict = screens(PARTIAL, watching).verdict
    assert (verdict.hold_reason, verdict.deciding) == (HoldReason.INCOMPLETE, None)


def test_a_verdict_names_the_places_of_all_conditions_that_made_a_rule_match(screens: Screens) -> None:
    condition = AllOf(of=(word("alpha"), AnyOf(of=(word("omega"), word("beta"))), SenderCondition(patterns=("sender.example",))))
    findings = screens(PLAIN, a_rule(condition)).verdict.findings
    assert [(finding.part, finding.excerpt) for finding in findings] == [
        ("header", "alpha"),
        ("1", "beta"),
        ("envelope", "x@sender.example"),
    ]


@pytest.mark.parametrize(
    ("condition", "change", "excerpt"),
    [
        (DirectionCondition(gates=(Gate.AUTH,)), {"gate": Gate.AUTH}, "gate auth"),
        (ClientCondition(networks=("192.0.2.0/24",)), {"client": Client(address="::ffff:192.0.2.9")}, "::ffff:192.0.2.9"),
        (ClientCondition(networks=("2001:db8::/32",)), {"client": Client(address="2001:db8::1")}, "2001:db8::1"),
        (UserCondition(names=("Alice",)), {"client": Client(address="::1", user="alice")}, "user alice"),
        (UserCondition(), {"client": Client(address="::1", user="bob")}, "user bob"),
        (SizeCondition(larger_than_bytes=100), {"size_bytes": 101}, "101 bytes"),
    ],
)
def test_properties_of_the_envelope(condition: Condition, change: dict[str, object], excerpt: str) -> None:
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=(a_rule(condition),)))
    assert screen(ENVELOPE, PLAIN, ruleset).verdict.decision is Decision.PASS
    verdict = screen(msgspec.structs.replace(ENVELOPE, **change), PLAIN, ruleset).verdict
    assert verdict.decision is Decision.HOLD
    assert [(finding.part, finding.excerpt) for finding in verdict.findings] == [("envelope", excerpt)]


def test_malformed_is_a_condition_like_any_other(screens: Screens) -> None:
    rule = a_rule(MalformedCondition(), action=Action.DELETE)
    verdict = screens(PARTIAL, rule).verdict
    assert verdict.decision is Decision.DELETE
    assert "message/partial" in verdict.findings[0].excerpt
    assert screens(PLAIN, rule).verdict.decision is Decision.PASS


def test_conditions_that_nest_too_deep_do_not_compile() -> None:
    condition: Condition = word("alpha")
    for _ in range(MOST_NESTED):
        condition = Not(of=condition)
    compile_policy(ScreeningPolicy(revision=1, rules=(a_rule(condition),)))
    with pytest.raises(ValueError, match="nest deeper"):
        compile_policy(ScreeningPolicy(revision=1, rules=(a_rule(Not(of=condition)),)))


WORDS = ("alpha", "beta", "gamma", "omega", "psi")
LEAVES: st.SearchStrategy[Condition] = st.one_of(
    st.sampled_from([word(each) for each in WORDS]),
    st.sampled_from([DirectionCondition(gates=(gate,)) for gate in (Gate.ANON, Gate.AUTH)]),
    st.just(MalformedCondition()),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(lambda of: AllOf(of=tuple(of))),
        st.lists(parts, min_size=1, max_size=3).map(lambda of: AnyOf(of=tuple(of))),
        parts.map(lambda of: Not(of=of)),
    ),
    max_leaves=8,
).filter(lambda condition: nesting(condition) <= MOST_NESTED)


def plainly(condition: Condition, text: str) -> bool:
    match condition:
        case AllOf(of=parts):
            return all(plainly(part, text) for part in parts)
        case AnyOf(of=parts):
            return any(plainly(part, text) for part in parts)
        case Not(of=part):
            return not plainly(part, text)
        case KeywordCondition(phrases=phrases):
            return phrases[0] in text.split()
        case DirectionCondition(gates=gates):
            return Gate.ANON in gates
        case _:
            return False


@given(
    conditions=st.lists(st.tuples(CONDITIONS, st.none() | CONDITIONS), max_size=5),
    text=st.lists(st.sampled_from(WORDS), max_size=5),
)
def test_rules_match_exactly_when_their_conditions_hold(
    conditions: list[tuple[Condition, Condition | None]], text: list[str]
) -> None:
    rules = tuple(a_rule(holds, unless=unless, rule_id=str(n)) for n, (holds, unless) in enumerate(conditions))
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=rules))
    body = " ".join(text)
    inspection = Inspection(ENVELOPE, f"From: x@sender.example\r\n\r\n{body}\r\n".encode(), ruleset)
    matched = [rule.rule.id for rule in ruleset.candidates(inspection.found) if rule.matches(inspection.holds)]
    wanted = [
        str(n)
        for n, (holds, unless) in enumerate(conditions)
        if plainly(holds, body) and not (unless is not None and plainly(unless, body))
    ]
    assert matched == wanted


@given(condition=CONDITIONS, known=st.dictionaries(st.integers(0, 8), st.booleans()), unknown=st.booleans())
def test_what_is_judged_without_all_answers_stays_so_whatever_they_are(
    condition: Condition, known: dict[int, bool], unknown: bool
) -> None:
    numbers: dict[object, int] = {}
    judged = expression(condition, lambda criterion: numbers.setdefault(criterion, len(numbers)))
    early = judged.judge(known.get)
    later = judged.judge(lambda criterion: known.get(criterion, unknown))
    assert later is not None
    assert early in (None, later)


def minutes_of(schedule: ScheduleCondition) -> set[int]:
    """The minutes of a week in it, counted from Monday, worked out the long way."""
    length = (schedule.end - schedule.begin) % 1440 or 1440
    starts = [tuple(Weekday).index(day) * 1440 + schedule.begin for day in schedule.days]
    return {(start + k) % (7 * 1440) for start in starts for k in range(length)}


@given(
    begin=st.integers(0, 1439),
    end=st.integers(0, 1440),
    days=st.sets(st.sampled_from(list(Weekday)), min_size=1),
    minutes=st.lists(st.integers(0, 7 * 1440 - 1), min_size=1, max_size=50),
)
def test_a_schedule_holds_exactly_in_its_minutes(begin: int, end: int, days: set[Weekday], minutes: list[int]) -> None:
    schedule = ScheduleCondition(timezone="UTC", days=tuple(days), begin=begin, end=end)
    wanted = minutes_of(schedule)
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    for minute in minutes:
        at = monday + timedelta(minutes=minute, seconds=59)
        assert is_within(schedule, at) == (minute in wanted), (minute, schedule)


def test_a_schedule_goes_by_when_the_message_was_accepted_and_by_its_own_clocks() -> None:
    office = ScheduleCondition(timezone="Europe/Vienna", days=(Weekday.FRIDAY,), begin=8 * 60, end=17 * 60)
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=(a_rule(office),)))

    def decision(at: datetime) -> Decision:
        return screen(msgspec.structs.replace(ENVELOPE, accepted_at=at), PLAIN, ruleset).verdict.decision

    assert decision(datetime(2026, 11, 27, 7, 0, tzinfo=UTC)) is Decision.HOLD  # 08:00 there
    assert decision(datetime(2026, 11, 27, 6, 59, tzinfo=UTC)) is Decision.PASS
    assert decision(datetime(2026, 7, 3, 6, 0, tzinfo=UTC)) is Decision.HOLD  # summer time
    assert decision(datetime(2026, 7, 3, 15, 0, tzinfo=UTC)) is Decision.PASS
    with pytest.raises(ValueError, match="no time zone"):
        compile_policy(ScreeningPolicy(revision=1, rules=(a_rule(msgspec.structs.replace(office, timezone="Europe/Nowhere")),)))
