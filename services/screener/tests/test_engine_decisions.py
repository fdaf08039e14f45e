"""Verdicts from given answers: who is asked, what a failure leads to, and that nothing passes in silence."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postern_core.envelope import Gate
from postern_core.policy import (
    AllOf,
    AnyOf,
    ClamdEngine,
    Condition,
    DirectionCondition,
    Engines,
    KeywordCondition,
    Not,
    OnFailure,
    OnVirus,
    RspamdEngine,
    Rule,
    RuleMode,
    ScreeningPolicy,
    SenderCondition,
    SpamCondition,
    VirusCondition,
    YaraCondition,
    YaraEngine,
    YaraFile,
)
from postern_core.verdict import Action, Decision, Engine, EngineAnswer, HoldReason
from postern_screener.engines.answers import NOBODY_ASKED, Answers, Failure, Spam, Viruses
from postern_screener.ruleset import compile_policy
from postern_screener.screening import Screened, screen

HEAD = b"From: x@sender.example\r\nSubject: s\r\n\r\n"
INFECTED = Answers(clamd=Viruses(("Win.Trojan.Agent-1",)))
CLEAN = Answers(clamd=Viruses())
SPAMMY = Answers(rspamd=Spam(7.5, 15, "add header", ("BAYES_SPAM",)))
DOWN = Answers(clamd=Failure("cannot connect"), rspamd=Failure("cannot connect"))
SOURCE = 'rule Fox : animal red { strings: $a = "quick fox" condition: $a } rule Dog : animal { strings: $a = "lazy dog" condition: $a }'
VIRUS, SPAM = VirusCondition(), SpamCondition(at_least=5)


def a_rule(condition: Condition, action: Action = Action.DELETE, rule_id: str = "r", **fields: Any) -> Rule:
    return Rule(id=rule_id, name=rule_id, condition=condition, action=action, **fields)


def engines(
    clamd: OnFailure | None = None, rspamd: OnFailure | None = None, on_virus: OnVirus = OnVirus.HOLD, yara: str = ""
) -> Engines:
    """Those that are given are on."""
    return Engines(
        clamd=ClamdEngine(enabled=clamd is not None, on_failure=clamd or OnFailure.DEFER, on_virus=on_virus),
        rspamd=RspamdEngine(enabled=rspamd is not None, on_failure=rspamd or OnFailure.PASS),
        yara=YaraEngine(enabled=bool(yara), files=(YaraFile(name="own", source=yara),) if yara else ()),
    )


@pytest.fixture
def judge(an_envelope: Any) -> Any:
    def run(used: Engines, *rules: Rule, answers: Answers = NOBODY_ASKED, body: bytes = HEAD, **fields: Any) -> Screened:
        ruleset = compile_policy(ScreeningPolicy(revision=7, rules=rules, engines=used))
        return screen(msgspec.structs.replace(an_envelope(), **fields), body, ruleset, answers)

    return run


# -- who is asked


def test_without_engines_nobody_is_asked(judge: Any) -> None:
    screened = judge(engines(), a_rule(KeywordCondition(phrases=("x",))))
    assert screened.asks == ()
    assert screened.verdict.answers == ()


def test_with_clamd_on_everything_that_no_rule_decides_on_is_scanned(judge: Any) -> None:
    assert judge(engines(OnFailure.DEFER)).asks == (Engine.CLAMD,)
    deciding = a_rule(SenderCondition(patterns=("sender.example",)))
    assert judge(engines(OnFailure.DEFER), deciding).asks == ()


def test_only_those_that_matter_are_asked_and_all_of_them_at_once(judge: Any) -> None:
    both = engines(OnFailure.DEFER, OnFailure.DEFER)
    virus, spam = a_rule(VIRUS, rule_id="v"), a_rule(SPAM, rule_id="s")
    sender = a_rule(SenderCondition(patterns=("sender.example",)), rule_id="x")
    elsewhere = DirectionCondition(gates=(Gate.AUTH,))
    assert judge(both, spam, virus).asks == (Engine.RSPAMD, Engine.CLAMD)
    assert judge(both, sender, spam, virus).asks == ()
    assert judge(both, virus, sender, spam).asks == (Engine.CLAMD,)
    assert judge(both, a_rule(AllOf(of=(elsewhere, SPAM)))).asks == (Engine.CLAMD,)  # and that for what no rule decides on
    assert judge(both, a_rule(SPAM, unless=SenderCondition(patterns=("sender.example",)))).asks == (Engine.CLAMD,)
    assert judge(both, a_rule(SPAM, mode=RuleMode.MONITOR)).asks == (Engine.RSPAMD, Engine.CLAMD)


def test_a_verdict_that_still_depends_on_engines_holds(judge: Any) -> None:
    """Whoever forgets to ask holds mail, and does not pass it."""
    verdict = judge(engines(OnFailure.PASS)).verdict
    assert (verdict.decision, verdict.hold_reason) == (Decision.HOLD, HoldReason.ENGINE_FAILED)


@pytest.mark.parametrize("condition", [VIRUS, SPAM, YaraCondition(), Not(of=VIRUS)])
def test_a_rule_that_asks_an_engine_that_is_off_does_not_compile(judge: Any, condition: Condition) -> None:
    with pytest.raises(ValueError, match="which is off"):
        judge(engines(), a_rule(condition))
    with pytest.raises(ValueError, match="which is off"):
        judge(engines(), a_rule(KeywordCondition(phrases=("x",)), unless=condition))


# -- what they answer


@pytest.mark.parametrize(
    ("names", "matches"),
    [((), True), (("win.trojan.*",), True), (("Eicar*", "WIN.TROJAN.AGENT-?"), True), (("Trojan",), False), (("Win",), False)],
)
def test_viruses_by_name(judge: Any, names: tuple[str, ...], matches: bool) -> None:
    verdict = judge(engines(OnFailure.DEFER), a_rule(VirusCondition(names=names)), answers=INFECTED).verdict
    assert (verdict.decision is Decision.DELETE) == matches
    if matches:
        assert (verdict.findings[0].part, verdict.findings[0].excerpt) == ("message", "Win.Trojan.Agent-1")
    else:
        assert (verdict.decision, verdict.hold_reason, verdict.detail) == (
            Decision.HOLD,
            HoldReason.VIRUS,
            "virus Win.Trojan.Agent-1",
        )


def test_a_virus_without_a_rule_is_held_or_deleted_and_a_rule_that_allows_goes_before(judge: Any) -> None:
    assert judge(engines(OnFailure.DEFER), answers=INFECTED).verdict.hold_reason is HoldReason.VIRUS
    assert judge(engines(OnFailure.DEFER, on_virus=OnVirus.DELETE), answers=INFECTED).verdict.decision is Decision.DELETE
    monitored = a_rule(VIRUS, mode=RuleMode.MONITOR)
    verdict = judge(engines(OnFailure.DEFER), monitored, answers=INFECTED).verdict
    assert (verdict.hold_reason, verdict.findings[0].monitored, verdict.deciding) == (HoldReason.VIRUS, True, None)
    allowed = judge(engines(OnFailure.DEFER), a_rule(VIRUS, Action.ALLOW), answers=INFECTED).verdict
    assert allowed.decision is Decision.PASS
    assert judge(engines(OnFailure.DEFER), answers=CLEAN).verdict.decision is Decision.PASS


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        (SpamCondition(at_least=7.5), True),
        (SpamCondition(at_least=7.6), False),
        (SpamCondition(actions=("Add Header", "reject")), True),
        (SpamCondition(actions=("reject",)), False),
        (SpamCondition(at_least=100, actions=("add header",)), True),
    ],
)
def test_spam_by_score_and_by_action(judge: Any, condition: Condition, matches: bool) -> None:
    verdict = judge(engines(rspamd=OnFailure.HOLD), a_rule(condition), answers=SPAMMY).verdict
    assert (verdict.decision is Decision.DELETE) == matches
    assert verdict.answers == (EngineAnswer(engine=Engine.RSPAMD, result="add header", detail="7.5 of 15"),)


# -- what a failure leads to


def test_defer_waits_hold_holds_pass_passes_and_says_so(judge: Any) -> None:
    deferred = judge(engines(OnFailure.DEFER), answers=DOWN)
    assert deferred.deferral == "clamd failed: cannot connect"
    assert deferred.verdict.hold_reason is HoldReason.ENGINE_FAILED  # for when it has waited long enough
    held = judge(engines(OnFailure.HOLD), answers=DOWN)
    assert (held.deferral, held.verdict.hold_reason) == ("", HoldReason.ENGINE_FAILED)
    assert held.verdict.detail == "clamd failed: cannot connect"
    passed = judge(engines(OnFailure.PASS), answers=DOWN).verdict
    assert (passed.decision, passed.unscanned) == (Decision.PASS, (Engine.CLAMD,))
    assert passed.answers[0] == EngineAnswer(engine=Engine.CLAMD, result="failed", detail="cannot connect")


def test_what_would_fail_again_is_held_and_does_not_wait(judge: Any) -> None:
    screened = judge(engines(OnFailure.DEFER), answers=Answers(clamd=Failure("too large", lasting=True)))
    assert (screened.deferral, screened.verdict.hold_reason) == ("", HoldReason.ENGINE_FAILED)


def test_a_rule_that_decides_without_the_engine_decides(judge: Any) -> None:
    sender = a_rule(SenderCondition(patterns=("sender.example",)), rule_id="x")
    spam = a_rule(SPAM, Action.HOLD, rule_id="s")
    assert judge(engines(rspamd=OnFailure.HOLD), sender, spam, answers=DOWN).verdict.decision is Decision.DELETE
    blocked = judge(engines(rspamd=OnFailure.HOLD), spam, sender, answers=DOWN).verdict
    assert (blocked.hold_reason, blocked.findings) == (HoldReason.ENGINE_FAILED, ())  # the first might have matched


def test_with_pass_the_rules_behind_go_on_as_if_nothing_was_found(judge: Any) -> None:
    spam = a_rule(SPAM, Action.HOLD, rule_id="s")
    keyword = a_rule(KeywordCondition(phrases=("lottery",)), rule_id="k")
    screened = judge(engines(rspamd=OnFailure.PASS), spam, keyword, answers=DOWN, body=HEAD + b"lottery")
    assert (screened.verdict.decision, screened.verdict.unscanned) == (Decision.DELETE, ())
    passed = judge(engines(rspamd=OnFailure.PASS), spam, keyword, answers=DOWN)
    assert passed.verdict.unscanned == (Engine.RSPAMD,)


def test_a_rule_in_mode_monitor_neither_holds_nor_defers_nor_marks(judge: Any) -> None:
    monitored = a_rule(SPAM, mode=RuleMode.MONITOR)
    for on_failure in OnFailure:
        screened = judge(engines(rspamd=on_failure), monitored, answers=DOWN)
        assert (screened.verdict.decision, screened.verdict.unscanned, screened.deferral) == (Decision.PASS, (), "")
        assert screened.verdict.answers[0].result == "failed"


def test_the_same_answers_give_the_same_verdict(judge: Any, an_envelope: Any) -> None:
    rules = (a_rule(SPAM, Action.HOLD, rule_id="s"), a_rule(VIRUS, rule_id="v"), a_rule(YaraCondition(), rule_id="y"))
    used = engines(OnFailure.DEFER, OnFailure.DEFER, yara=SOURCE)
    answers = Answers(clamd=Viruses(("A", "B")), rspamd=Spam(7, 15, "x"))
    ruleset = compile_policy(ScreeningPolicy(revision=7, rules=rules, engines=used))
    envelope = an_envelope()
    first, *others = (screen(envelope, HEAD + b"quick fox", ruleset, answers) for _ in range(5))
    assert all(_untimed(other) == _untimed(first) for other in others)
    assert msgspec.json.decode(msgspec.json.encode(answers), type=Answers) == answers


def _untimed(screened: Screened) -> Screened:
    answers = tuple(msgspec.structs.replace(answer, ms=0) for answer in screened.verdict.answers)
    return msgspec.structs.replace(screened, verdict=msgspec.structs.replace(screened.verdict, answers=answers))


_LEAVES = st.sampled_from(
    [
        VIRUS,
        VirusCondition(names=("Win.*",)),
        SPAM,
        YaraCondition(tags=("red",)),
        SenderCondition(patterns=("sender.example",)),
        SenderCondition(patterns=("elsewhere.example",)),
    ]
)
_CONDITIONS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AllOf(of=tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AnyOf(of=tuple(parts))),
        inner.map(lambda part: Not(of=part)),
    ),
    max_leaves=5,
)
_RULES = st.lists(
    st.builds(a_rule, _CONDITIONS, st.sampled_from([Action.DELETE, Action.ALLOW]), mode=st.sampled_from(RuleMode)), max_size=4
)
_FAILED = st.builds(Failure, st.just("away"), st.booleans())
_ANSWERS = st.builds(
    Answers,
    clamd=st.one_of(st.just(Viruses()), st.just(Viruses(("Win.A",))), st.just(Viruses(("Other",))), _FAILED),
    rspamd=st.one_of(st.just(Spam(1, 15, "no action")), st.just(Spam(9, 15, "reject")), _FAILED),
)


@given(_RULES, _ANSWERS, st.sampled_from(OnFailure), st.sampled_from(OnFailure), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_round_of_questions_is_enough_and_a_failure_never_passes_in_silence(
    judge: Any, rules: list[Rule], answers: Answers, clamd: OnFailure, rspamd: OnFailure, has_fox: bool
) -> None:
    used = engines(clamd, rspamd, yara=SOURCE)
    body = HEAD + (b"quick fox" if has_fox else b"")
    first = judge(used, *rules, body=body)
    given = Answers(
        clamd=answers.clamd if Engine.CLAMD in first.asks else None,
        rspamd=answers.rspamd if Engine.RSPAMD in first.asks else None,
    )
    second = judge(used, *rules, body=body, answers=given)
    assert second.asks == ()
    if first.asks:
        assert first.verdict.hold_reason is HoldReason.ENGINE_FAILED
    verdict = second.verdict
    if verdict.decision is Decision.PASS and verdict.deciding is None:
        # nobody decided, so clamd was needed: it said clean, or the message says that it did not
        assert given.clamd == Viruses() or (verdict.unscanned[-1] is Engine.CLAMD and clamd is OnFailure.PASS)
    if second.deferral:
        assert verdict.hold_reason is HoldReason.ENGINE_FAILED
    more = judge(used, *rules, body=body, answers=answers)  # an answer that nobody needed changes nothing
    assert (more.verdict.decision, more.verdict.unscanned, more.deferral) == (
        verdict.decision,
        verdict.unscanned,
        second.deferral,
    )


# -- YARA


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        (YaraCondition(), True),
        (YaraCondition(rules=("Fox",)), True),
        (YaraCondition(rules=("Dog",)), False),
        (YaraCondition(tags=("red",)), True),
        (YaraCondition(tags=("animal", "other")), True),
        (YaraCondition(rules=("Dog",), tags=("red",)), True),
        (YaraCondition(tags=("blue",)), False),
    ],
)
def test_yara_by_rule_and_by_tag(judge: Any, condition: Condition, matches: bool) -> None:
    verdict = judge(engines(yara=SOURCE), a_rule(condition), body=HEAD + b"the quick fox").verdict
    assert (verdict.decision is Decision.DELETE) == matches
    assert verdict.answers[0].detail == "own:Fox"


def test_yara_sees_the_content_of_a_part_and_says_where(judge: Any) -> None:
    body = (
        b"From: x@sender.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.b64encode(b"0123456789 lazy dog")
        + b"\r\n--b--\r\n"
    )
    finding = judge(engines(yara=SOURCE), a_rule(YaraCondition(tags=("animal",))), body=body).verdict.findings[0]
    assert (finding.part, finding.offset, finding.excerpt) == ("2", 11, "Dog: lazy dog")


def test_yara_is_not_run_when_no_rule_comes_to_it(judge: Any) -> None:
    sender = a_rule(SenderCondition(patterns=("sender.example",)), rule_id="x")
    assert judge(engines(yara=SOURCE), sender, a_rule(YaraCondition())).verdict.answers == ()


def test_yara_that_takes_too_long_is_a_failure(judge: Any) -> None:
    slow = "rule Slow { condition: for all i in (0..100000000000) : (uint8(i % filesize) != 256) }"
    used = Engines(yara=YaraEngine(enabled=True, timeout_s=1, files=(YaraFile(name="slow", source=slow),)))
    screened = judge(used, a_rule(YaraCondition()))
    assert screened.verdict.hold_reason is HoldReason.ENGINE_FAILED
    assert screened.verdict.detail == "yara failed: not done after 1 s"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("rule a {\n condition: nothing }", "'own', line 2, column 13: unknown identifier `nothing`"),
        ("rule a {", "line 1"),
        ('include "/etc/passwd"', "include statements not allowed"),
    ],
)
def test_a_yara_file_that_does_not_compile_is_refused_with_its_place(judge: Any, source: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        judge(engines(yara=source))
