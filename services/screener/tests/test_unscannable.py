"""Mail that cannot be screened whole: each kind has its answer, and none of them is silent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from postern_core.changes import AddHeader, Notify
from postern_core.policy import (
    KeywordCondition,
    MalformedCondition,
    Rule,
    ScreeningPolicy,
    UnscannableAction,
    UnscannablePolicy,
    decode_section,
    encode_section,
)
from postern_core.verdict import Action, Decision, HoldReason, Obstacle, Unscannable, Verdict
from postern_screener.actions import edits_of
from postern_screener.changes.edits import apply
from postern_screener.defects import Defect
from postern_screener.ruleset import compile_policy
from postern_screener.screening import Screened, screen
from postern_screener.unscannable import MAX_OBSTACLES, by_policy, header_fields, obstacles_of, poisoned

HOLD, PASS, DELETE = UnscannableAction.HOLD, UnscannableAction.PASS, UnscannableAction.DELETE
HEAD = b"From: a@sender.example\r\nSubject: s\r\n"
TWICE = HEAD + b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nhello\r\n"
PARTIAL = HEAD + b"Content-Type: message/partial; id=1; number=1; total=2\r\n\r\nhalf\r\n"
BOTH = HEAD + b"Content-Type: message/partial; id=1\r\nContent-Disposition: inline\r\nContent-Disposition: inline\r\n\r\nhalf\r\n"


def screened(an_envelope: Any, body: bytes, *rules: Rule, hold: str = "", **answers: UnscannableAction) -> Screened:
    policy = ScreeningPolicy(revision=7, rules=rules, unscannable=UnscannablePolicy(**answers))
    return screen(msgspec.structs.replace(an_envelope(), hold=hold), body, compile_policy(policy))


@pytest.mark.parametrize(("body", "kind"), [(TWICE, Unscannable.MALFORMED), (PARTIAL, Unscannable.INCOMPLETE)])
def test_each_kind_is_held_by_default_and_has_an_answer_of_its_own(an_envelope: Any, body: bytes, kind: Unscannable) -> None:
    held = screened(an_envelope, body).verdict
    assert (held.decision, held.hold_reason) == (Decision.HOLD, HoldReason(kind.value))
    assert held.obstacles[0].kind is kind
    assert held.detail
    deleted = screened(an_envelope, body, **{kind.value: DELETE}).verdict
    assert (deleted.decision, deleted.hold_reason, deleted.detail) == (Decision.DELETE, None, held.detail)
    passed = screened(an_envelope, body, **{kind.value: PASS}).verdict
    assert (passed.decision, passed.hold_reason, passed.detail) == (Decision.PASS, None, held.detail)
    assert header_fields(passed).startswith(b"X-Postern-Unscannable: %s; part 1: " % kind.value.encode())
    assert header_fields(held) == header_fields(deleted) == b""
    others = {each.value: PASS for each in Unscannable if each not in (kind, Unscannable.POISON)}
    assert screened(an_envelope, body, **others).verdict == held


def test_the_gravest_answer_counts(an_envelope: Any) -> None:
    assert screened(an_envelope, BOTH, malformed=HOLD, incomplete=DELETE).verdict.hold_reason is HoldReason.MALFORMED
    assert screened(an_envelope, BOTH, malformed=DELETE, incomplete=HOLD).verdict.hold_reason is HoldReason.INCOMPLETE
    assert screened(an_envelope, BOTH, malformed=DELETE, incomplete=PASS).verdict.decision is Decision.DELETE
    passed = screened(an_envelope, BOTH, malformed=PASS, incomplete=PASS).verdict
    fields = header_fields(passed).split(b"\r\n")
    assert [field.partition(b";")[0] for field in fields] == [
        b"X-Postern-Unscannable: malformed",
        b"X-Postern-Unscannable: incomplete",
        b"",
    ]


def test_a_rule_decides_before_the_policy_does(an_envelope: Any) -> None:
    allow = Rule(id="r", name="r", condition=MalformedCondition(), action=Action.ALLOW)
    allowed = screened(an_envelope, TWICE, allow).verdict
    assert (allowed.decision, header_fields(allowed)) == (Decision.PASS, b"")
    assert allowed.obstacles  # it is told of all the same
    delete = Rule(id="r", name="r", condition=KeywordCondition(phrases=("hello",)), action=Action.DELETE)
    assert screened(an_envelope, TWICE, delete, malformed=PASS).verdict.detail == "rule r"


def test_what_the_gate_wants_held_stays_held(an_envelope: Any) -> None:
    for answer in (PASS, DELETE):
        verdict = screened(an_envelope, TWICE, hold="DMARC says no", malformed=answer).verdict
        assert (verdict.decision, verdict.hold_reason) == (Decision.HOLD, HoldReason.AUTHENTICATION)
        assert verdict.obstacles


def test_poison_is_held_or_deleted_and_never_passes() -> None:
    held = poisoned(7, "screening failed 4 times", UnscannablePolicy())
    assert (held.decision, held.hold_reason, held.detail) == (Decision.HOLD, HoldReason.POISON, "screening failed 4 times")
    deleted = poisoned(7, "screening failed 4 times", UnscannablePolicy(poison=DELETE))
    assert (deleted.decision, deleted.detail) == (Decision.DELETE, "screening failed 4 times")
    assert not held.was_screened
    assert not deleted.was_screened  # so that nobody is told why its rules did not match
    with pytest.raises(ValueError, match="cannot pass"):
        UnscannablePolicy(poison=PASS)
    encoded = encode_section(ScreeningPolicy(revision=1, unscannable=UnscannablePolicy(poison=DELETE)))
    assert decode_section(encoded, ScreeningPolicy).unscannable.poison is DELETE


def test_obstacles_are_told_in_order_and_are_few() -> None:
    many = [Defect(str(n), "twice") for n in range(50)]
    told = obstacles_of([*many, Defect("9", "elsewhere", Unscannable.INCOMPLETE)])
    assert [obstacle.kind.value for obstacle in told[:3]] == ["malformed", "incomplete", "malformed"]
    assert len(told) == MAX_OBSTACLES
    assert obstacles_of([]) == ()


def test_a_header_field_is_one_line_of_ascii() -> None:
    reason = "ein\r\nSubject: Gr\u00fc\u00dfe \u202e" + "x" * 5000
    (obstacle,) = obstacles_of([Defect("1.2", reason)])
    verdict = by_policy(Verdict(revision=1, decision=Decision.PASS, obstacles=(obstacle,)), UnscannablePolicy(malformed=PASS))
    field = header_fields(verdict)
    assert field.count(b"\r\n") == 1
    assert field.endswith(b"\r\n")
    assert field.isascii()
    assert len(field) < 500
    assert header_fields(msgspec.structs.replace(verdict, obstacles=(Obstacle(kind=Unscannable.LIMIT, part="1", reason="r"),)))


FORGED = b"X-Postern-Unscannable: encrypted; part 1: fine\r\nx-postern-UNSCANNED: clamd,\r\n rspamd\r\n"


def passed_on(found: Screened, body: bytes) -> bytes:
    """What goes on, as `actions` makes it."""
    return bytes(apply(body, edits_of(found)))


@pytest.mark.parametrize("allows", [False, True])
def test_fields_of_ours_that_a_sender_wrote_are_removed_where_mail_goes_on(an_envelope: Any, allows: bool) -> None:
    clean = b"Received: by mx.example; now\r\n" + HEAD + b"\r\nhello\r\n"
    mail = clean.replace(b"Subject", FORGED + b"Subject")
    allow = Rule(id="r", name="r", condition=KeywordCondition(phrases=("hello",)), action=Action.ALLOW)
    found = screened(an_envelope, mail, *([allow] if allows else []))
    assert passed_on(found, mail) == clean
    assert [(made.kind, made.rule_id, made.detail) for made in found.verdict.changes] == [
        ("remove-header", "", "1 X-Postern-Unscannable removed: not written by this Postern"),
        ("remove-header", "", "1 X-Postern-Unscanned removed: not written by this Postern"),
    ]
    assert screened(an_envelope, clean).edits == ()
    assert screened(an_envelope, clean).verdict.changes == ()


def test_of_two_such_fields_ours_stays_and_held_mail_keeps_its_bytes(an_envelope: Any) -> None:
    mail = PARTIAL.replace(b"Subject", FORGED + b"Subject")
    found = screened(an_envelope, mail, incomplete=PASS)
    ours, _, rest = passed_on(found, mail).partition(b"\r\n")
    assert ours.startswith(b"X-Postern-Unscannable: incomplete; ")
    assert rest == PARTIAL
    held = screened(an_envelope, mail)
    assert (held.verdict.decision, held.edits, held.verdict.changes) == (Decision.HOLD, (), ())
    notify = Notify(address="admin@relay.example")
    told = Rule(id="r", name="r", condition=KeywordCondition(phrases=("s",)), action=Action.HOLD, changes=(notify,))
    assert [made.kind for made in screened(an_envelope, mail, told).verdict.changes] == ["notify"]


def test_where_the_header_cannot_be_read_surely_they_stay_below_ours(an_envelope: Any) -> None:
    mail = FORGED + HEAD + b"this is no field\r\n\r\nhello\r\n"
    found = screened(an_envelope, mail, malformed=PASS)
    assert found.verdict.decision is Decision.PASS
    passed = passed_on(found, mail)
    assert passed.startswith(b"X-Postern-Unscannable: malformed; ")
    assert passed.endswith(mail)


def test_what_a_rule_puts_on_top_is_the_administrators(an_envelope: Any) -> None:
    mail = FORGED + HEAD + b"\r\nhello\r\n"
    add = AddHeader(name="X-Postern-Unscannable", value="no")
    rule = Rule(id="r", name="r", condition=KeywordCondition(phrases=("hello",)), action=Action.CONTINUE, changes=(add,))
    assert passed_on(screened(an_envelope, mail, rule), mail) == b"X-Postern-Unscannable: no\r\n" + HEAD + b"\r\nhello\r\n"
