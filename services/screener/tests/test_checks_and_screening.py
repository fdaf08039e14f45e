"""Rules: what each family matches, which rule decides, and what the verdict says about it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postern_core.policy import (
    AttachmentCondition,
    AttachmentMatch,
    KeywordCondition,
    KeywordScope,
    RelayDomain,
    Rule,
    ScreeningPolicy,
    SenderCondition,
)
from postern_core.verdict import Action, Decision, HoldReason
from postern_screener.checks.senders import SenderCheck
from postern_screener.ruleset import compile_policy
from postern_screener.screening import EXCERPT_CHARACTERS, MAX_FINDINGS, Screened

Screens = Callable[..., Screened]


def a_message(
    subject: str = "a test", body: str = "Hello.", attachments: dict[str, bytes] | None = None, from_: str = "x@sender.example"
) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = from_, "a@relay.example", subject
    message.set_content(body)
    for name, content in (attachments or {}).items():
        message.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    return message.as_bytes()


def sender(*patterns: str, action: Action = Action.DELETE, rule_id: str = "s") -> Rule:
    return Rule(id=rule_id, name=f"rule {rule_id}", condition=SenderCondition(patterns=patterns), action=action)


def keyword(
    *phrases: str,
    scope: KeywordScope = KeywordScope.BOTH,
    whole_word: bool = False,
    action: Action = Action.HOLD,
    rule_id: str = "k",
    forward_to: str = "",
) -> Rule:
    condition = KeywordCondition(phrases=phrases, scope=scope, whole_word=whole_word)
    return Rule(id=rule_id, name=f"rule {rule_id}", condition=condition, action=action, forward_to=forward_to)


def attachment(match: AttachmentMatch, *values: str, larger_than: int = 0, rule_id: str = "a") -> Rule:
    condition = AttachmentCondition(match=match, values=values, larger_than_bytes=larger_than)
    return Rule(id=rule_id, name=f"rule {rule_id}", condition=condition, action=Action.HOLD)


@pytest.mark.parametrize(
    ("pattern", "reverse_path", "from_field", "matches"),
    [
        ("a@example.com", "a@example.com", "x@other.example", True),
        ("a@example.com", "A@EXAMPLE.com", "x@other.example", True),
        ("jösé@bücher.example", "JÖSÉ@xn--bcher-kva.example", "x@other.example", True),
        ("jösé@bücher.example", "jo\u0308se\u0301@xn--bcher-kva.example", "x@other.example", True),
        ("jösé@bücher.example", "jose@xn--bcher-kva.example", "x@other.example", False),
        ("用户@xn--bcher-kva.example", "x@other.example", "用户@Bücher.example", True),
        ("a@example.com", "b@example.com", "x@other.example", False),
        ("a@example.com", "a@sub.example.com", "x@other.example", False),
        ("a@example.com", "", "Somebody <a@example.com>", True),
        ("a@example.com", "", '"a b" <a@Example.COM>, c@d.example', True),
        ("a@example.com", "", "a@example.com via list <l@list.example>", True),
        ("example.com", "a@example.com", "", True),
        ("example.com", "a@sub.example.com", "", False),
        ("example.com", "a@notexample.com", "", False),
        ("*.example.com", "a@sub.example.com", "", True),
        ("*.example.com", "a@deep.sub.example.com", "", True),
        ("*.example.com", "a@example.com", "", False),
        ("bücher.example", "a@xn--bcher-kva.example", "", True),
        ("xn--bcher-kva.example", "", "a@Bücher.example", True),
        ("example.com", "", '"x"@example.com', True),
        ("example.com", "", 'Joe <"x y"@example.com>', True),
        ("example.com", "", "x @ example.com", True),
        ("example.com", "", "x@(comment)example.com", True),
        ("example.com", "", "x(comment)@example.com", True),
        ("example.com", "", "x@example .com", True),
        ("example.com", "", "x@example. com", True),
        ("example.com", "", "x@example.com. Regards", True),
        ("example.com", "", "'x@example.com'", True),
        ("example.com", "", "x@example.com.", True),
        ("example.com", "", "a" * 1900 + " <x@example.com>", True),
        ("*.example.com", "", "x@" + "a." * 900 + "example.com", True),
        ("a@example.com", "", '"a"@example.com', True),
        ("a@example.com", "", '"\\a"@example.com', True),
        ("a@example.com", '"a"@example.com', "", True),
        ("example.com", "", "x@example.community", False),
        ("example.com", "", "example.com", False),
        ("example.com", "", "no address at all", False),
        ("example.com", "", "", False),
    ],
)
def test_senders(screens: Screens, pattern: str, reverse_path: str, from_field: str, matches: bool) -> None:
    body = f"From: {from_field}\r\nSubject: s\r\n\r\nhi\r\n".encode()
    verdict = screens(body, sender(pattern), reverse_path=reverse_path).verdict
    assert (verdict.decision is Decision.DELETE) == matches


def test_every_from_field_and_encoded_ones_count(screens: Screens) -> None:
    body = b"From: x@other.example\r\nFrom: =?utf-8?q?J=C3=B6rg?= <j@example.com>\r\n\r\nhi\r\n"
    verdict = screens(body, sender("example.com")).verdict
    assert verdict.findings[0].part == "header"
    assert verdict.findings[0].excerpt == "j@example.com"


@pytest.mark.parametrize("unit", ["a", "@", "a@", '"', '\\"', "@(", "(", "@ ", "a.", "@a.", "é@é", "@é"])
def test_hostile_from_fields_take_linear_time(unit: str) -> None:
    check = SenderCheck([(0, SenderCondition(patterns=("nobody.example", "*.nobody.example", "nobody@here.example")))])
    assert list(check.check("", [unit * 100_000])) == []  # the test's time-out is the assertion


@pytest.mark.parametrize("pattern", ["", "a@", "not a domain", "*", "a.*.example", "*.*.example"])
def test_a_pattern_that_is_none_does_not_compile(pattern: str) -> None:
    with pytest.raises(ValueError):
        SenderCheck([(0, SenderCondition(patterns=(pattern,)))])


@pytest.mark.parametrize(
    ("match", "value", "name", "matches"),
    [
        (AttachmentMatch.NAME, "invoice.pdf", "Invoice.PDF", True),
        (AttachmentMatch.NAME, "invoice.pdf", "my invoice.pdf", False),
        (AttachmentMatch.NAME, "Invoice.pdf", "invoice.pdf .", True),
        (AttachmentMatch.EXTENSION, "exe", "a.EXE", True),
        (AttachmentMatch.EXTENSION, ".exe", "a.exe", True),
        (AttachmentMatch.EXTENSION, "*.exe", "a.exe", True),
        (AttachmentMatch.EXTENSION, "exe", "a.exe.txt", True),
        (AttachmentMatch.EXTENSION, "exe", "a.pdf      .exe", True),
        (AttachmentMatch.EXTENSION, "exe", "aexe", False),
        (AttachmentMatch.EXTENSION, "ex", "a.exe", False),
        (AttachmentMatch.EXTENSION, "tar.gz", "a.tar.gz", True),
        (AttachmentMatch.EXTENSION, "tar.gz", "a.tar.b.gz", False),
    ],
)
def test_attachment_names(screens: Screens, match: AttachmentMatch, value: str, name: str, matches: bool) -> None:
    verdict = screens(a_message(attachments={name: b"x"}), attachment(match, value)).verdict
    assert (verdict.decision is Decision.HOLD) == matches
    if matches:
        assert verdict.findings[0].part == "2"


@pytest.mark.parametrize(("size", "matches"), [(4999, False), (5000, False), (5001, True)])
def test_attachment_size_is_the_decoded_one(screens: Screens, size: int, matches: bool) -> None:
    rule = attachment(AttachmentMatch.SIZE, larger_than=5000)
    verdict = screens(a_message(attachments={"a.bin": b"x" * size}), rule).verdict
    assert (verdict.decision is Decision.HOLD) == matches


def test_a_long_text_is_no_large_attachment(screens: Screens) -> None:
    rule = attachment(AttachmentMatch.SIZE, larger_than=5000)
    assert screens(a_message(body="word " * 5000), rule).verdict.decision is Decision.PASS


def test_an_attachment_in_an_attached_message_counts(screens: Screens) -> None:
    inner = a_message(attachments={"a.exe": b"x"})
    raw = b"Subject: fwd\r\nContent-Type: message/rfc822\r\n\r\n" + inner
    verdict = screens(raw, attachment(AttachmentMatch.EXTENSION, "exe")).verdict
    assert verdict.findings[0].part == "1.2"


@pytest.mark.parametrize(
    ("scope", "subject", "body", "matches"),
    [
        (KeywordScope.HEADER, "free money", "hello", True),
        (KeywordScope.HEADER, "hello", "free money", False),
        (KeywordScope.BODY, "hello", "free money", True),
        (KeywordScope.BODY, "free money", "hello", False),
        (KeywordScope.BOTH, "free money", "hello", True),
        (KeywordScope.BOTH, "hello", "free money", True),
    ],
)
def test_keyword_scopes(screens: Screens, scope: KeywordScope, subject: str, body: str, matches: bool) -> None:
    verdict = screens(a_message(subject=subject, body=body), keyword("Free Money", scope=scope)).verdict
    assert (verdict.decision is Decision.HOLD) == matches


@pytest.mark.parametrize(
    ("phrase", "whole_word", "body", "matches"),
    [
        ("lottery", False, "the LOTTERYs", True),
        ("lottery", True, "the LOTTERYs", False),
        ("lottery", True, "lotterys, then (lottery)!", True),
        ("lottery", True, "élottery", False),
        ("lottery", True, "lottery_", False),
        ("cat", True, "concatenate", False),
        ("free money", False, "free \r\n\t money", True),
        ("free money", False, "freemoney", False),
        ("a.c", False, "abc", False),
        ("a.c", False, "xa.cx", True),
        ("100% (sure)", False, "it is 100% (sure) now", True),
        ("$$$", True, "a $$$ b", True),
        ("straße", False, "die STRASSE dort", True),
        ("ПРИВЕТ", False, "он сказал привет", True),
        ("日本", False, "これは日本語", True),
        ("ﬁnance", False, "FINANCE", True),
        ("back\\slash", False, "a back\\slash", True),
    ],
)
def test_keywords(screens: Screens, phrase: str, whole_word: bool, body: str, matches: bool) -> None:
    verdict = screens(a_message(body=body), keyword(phrase, whole_word=whole_word)).verdict
    assert (verdict.decision is Decision.HOLD) == matches


@pytest.mark.parametrize(
    "part",
    [
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nlot=\r\nte=72y",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(b"the lottery"),
        b"Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes("lottery".encode("utf-16")),
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes("lottery".encode("utf-16-le")),
        b"Content-Type: text/plain; charset=utf-7\r\n\r\nlot+AHQ-ery",
        b"Content-Type: text/plain; charset=utf-8\r\n\r\nlot\xc2\xadtery",
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xef\xbd\x8cottery",
        b"Content-Type: text/html\r\n\r\n<p>lot<b>te</b>ry",
        b"Content-Type: text/html\r\n\r\n<p>l&#111;ttery",
        b"Content-Type: text/html\r\n\r\n<p>lot<!-- no -->tery",
        b"Content-Type: text/html; charset=utf-8\r\n\r\n<p>lot&shy;te&zwnj;ry",
        b"Content-Type: text/html\r\n\r\n<p title='lottery'>",
        b"Content-Type: text/enriched\r\n\r\nlot<bold>tery",
        b"Content-Type: text/plain; charset=unicode-1-1-utf-7\r\n\r\nlot+AHQ-ery",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(b"lot\0tery"),
        b"Content-Type: message/rfc822\r\n\r\nSubject: lot=?utf-8?q?tery?=\r\n\r\nx",
        b"Content-Type: text/calendar\r\n\r\nSUMMARY:lottery",
        b"Content-Type: text/plain\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nlottery",
        b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nlottery",
        b"Content-Type: message/rfc822\r\n\r\nSubject: lottery\r\n\r\nx",
        b"Content-Type: message/delivery-status\r\n\r\nDiagnostic-Code: smtp; 550 lottery",
        b"\r\nlottery",
    ],
)
def test_a_keyword_is_found_however_the_part_is_encoded(screens: Screens, part: bytes) -> None:
    raw = b"Subject: s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\n" + part + b"\r\n--b--\r\n"
    verdict = screens(raw, keyword("lottery", scope=KeywordScope.BODY)).verdict
    assert verdict.hold_reason is HoldReason.RULE
    assert verdict.findings[0].part.startswith("2")


def test_the_verdict_names_rule_part_offset_and_text(screens: Screens) -> None:
    body = b"Subject: s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe, dear  FREE\r\nMONEY winner"
    verdict = screens(body, sender("nobody.example", rule_id="0"), keyword("free money", rule_id="1")).verdict
    finding = verdict.findings[0]
    assert (finding.rule_id, finding.rule_name, finding.part) == ("1", "rule 1", "1")
    assert finding.offset == "Grüße, dear  ".encode().__len__()
    assert finding.excerpt == "FREE MONEY"
    assert verdict.revision == 7


@pytest.mark.parametrize(
    "subject", [b"lot=?utf-8?q?tery?=", b"=?utf-8?q?lot?==?utf-8?q?tery?=", b"=?x-y?q?l=6Fttery?=", b"lot\0tery"]
)
def test_a_keyword_is_found_in_header_fields_that_only_some_clients_decode(screens: Screens, subject: bytes) -> None:
    verdict = screens(b"Subject: " + subject + b"\r\n\r\nx", keyword("lottery", scope=KeywordScope.HEADER)).verdict
    assert verdict.findings[0].part == "header"


@pytest.mark.parametrize("between", ["\r\n", "\r\n\r\n", "\r", "\n", " \t\v\f ", "\r\n \r\n\t", "\r\n" * 1000, " \r \n" * 1000])
@pytest.mark.parametrize("length", [0, 100_000])
def test_any_white_space_stands_between_the_words_of_a_phrase(screens: Screens, between: str, length: int) -> None:
    around = "x y\r\n" * (length // 5)
    content = f"{around}\r\n win{between}big \r\n{around}".encode()
    raw = b"Subject: s\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(content)
    assert screens(raw, keyword("win big", whole_word=True)).verdict.hold_reason is HoldReason.RULE
    assert screens(raw, keyword("winbig"), keyword("any big")).verdict.decision is Decision.PASS


def test_many_phrases_compile_while_a_newcomer_waits(screens: Screens) -> None:
    rule = keyword(*[f"phrase number {n} of many" for n in range(10_100)], "free money")
    verdict = screens(a_message(body="no phrase \r\n\t number  10099\tof many"), rule).verdict
    assert verdict.findings[0].excerpt == "phrase number 10099 of many"
    assert screens(a_message(body="free\u2003 \r\n money"), rule).verdict.decision is Decision.HOLD
    assert screens(a_message(body="freemoney phrase number 10099 of some"), rule).verdict.decision is Decision.PASS


def test_an_excerpt_is_short_and_holds_no_controls(screens: Screens) -> None:
    phrase = "x" * 500
    finding = screens(a_message(body="a" + phrase), keyword(phrase)).verdict.findings[0]
    assert finding.excerpt == "x" * EXCERPT_CHARACTERS
    raw = b"From: a\x1b[31m@example.com\r\n\r\nhi"
    assert screens(raw, sender("example.com")).verdict.findings[0].excerpt.isprintable()


def test_the_first_rule_in_order_decides_wherever_it_matches(screens: Screens) -> None:
    body = a_message(subject="alpha", body="omega", attachments={"a.exe": b"x"})
    rules = [
        keyword("omega", rule_id="k2"),
        attachment(AttachmentMatch.EXTENSION, "exe"),
        sender("sender.example"),
        keyword("alpha", rule_id="k1"),
    ]
    for turn in range(4):
        ordered = rules[turn:] + rules[:turn]
        verdict = screens(body, *ordered).verdict
        assert [finding.rule_id for finding in verdict.findings] == [rule.id for rule in ordered]
        assert verdict.decision is (Decision.DELETE if ordered[0].action is Action.DELETE else Decision.HOLD)
    assert (
        len(screens(body, *[keyword("alpha", rule_id=str(n)) for n in range(MAX_FINDINGS + 9)]).verdict.findings) == MAX_FINDINGS
    )


def test_one_phrase_may_serve_several_rules(screens: Screens) -> None:
    in_header = keyword("alpha", scope=KeywordScope.HEADER, rule_id="h")
    in_body = keyword("ALPHA", scope=KeywordScope.BODY, rule_id="b")
    word = keyword("alpha", whole_word=True, rule_id="w")
    assert [f.rule_id for f in screens(a_message(body="alphabet"), in_header, word, in_body).verdict.findings] == ["b"]
    assert [f.rule_id for f in screens(a_message(subject="alpha"), in_header, word, in_body).verdict.findings] == ["h", "w"]


def test_without_a_match_the_message_passes(screens: Screens) -> None:
    screened = screens(a_message(subject="Grüße"), keyword("lottery"), sender("other.example"))
    assert screened.verdict.decision is Decision.PASS
    assert screened.verdict.findings == ()
    assert screened.subject == "Grüße"


def test_what_does_not_parse_is_held_unless_a_rule_decides(screens: Screens) -> None:
    deep = b"From: a@sender.example\r\n" + b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(500)
    )
    verdict = screens(deep + b"\r\nlottery", keyword("other")).verdict
    assert (verdict.decision, verdict.hold_reason) == (Decision.HOLD, HoldReason.MALFORMED)
    assert "nesting" in verdict.detail
    assert screens(deep, sender("sender.example")).verdict.decision is Decision.DELETE
    assert screens(deep + b"\r\nlottery", keyword("lottery", action=Action.DELETE)).verdict.decision is Decision.DELETE


def test_a_message_with_a_defect_is_held_unless_a_rule_decides(screens: Screens) -> None:
    partial = b"Content-Type: message/partial; id=1; number=1; total=2\r\n\r\nhalf of something\r\n"
    verdict = screens(partial).verdict
    assert (verdict.decision, verdict.hold_reason) == (Decision.HOLD, HoldReason.INCOMPLETE)
    assert "message/partial" in verdict.detail
    assert screens(partial, keyword("half", action=Action.DELETE)).verdict.decision is Decision.DELETE


def test_what_the_gate_asks_to_hold_is_held_unless_a_rule_decides(screens: Screens) -> None:
    reason = "DMARC: sender.example asks to quarantine what does not pass"
    plain = b"From: a@sender.example\r\n\r\nlottery\r\n"
    verdict = screens(plain, keyword("other"), hold=reason).verdict
    assert (verdict.decision, verdict.hold_reason, verdict.detail) == (Decision.HOLD, HoldReason.AUTHENTICATION, reason)
    assert screens(plain, keyword("lottery", action=Action.DELETE), hold=reason).verdict.decision is Decision.DELETE
    assert screens(plain).verdict.decision is Decision.PASS


def test_a_message_that_was_forwarded_before_is_held(screens: Screens) -> None:
    rule = keyword("lottery", action=Action.FORWARD, rule_id="r-1", forward_to="boss@relay.example")
    body = a_message(body="lottery")
    assert screens(body, rule).verdict.decision is Decision.FORWARD
    assert screens(body, rule).verdict.forward_to == "boss@relay.example"
    same_rule = screens(b"X-Postern-Forwarded-By: r-1\r\n" + body, rule).verdict
    same_address = screens(b"X-Postern-Original-Recipients: a@x.example,\r\n Boss@relay.example\r\n" + body, rule).verdict
    another = screens(b"X-Postern-Original-Recipients: a@x.example\r\nX-Postern-Forwarded-By: r-2\r\n" + body, rule).verdict
    assert (same_rule.decision, same_rule.hold_reason) == (Decision.HOLD, HoldReason.RULE)
    assert same_address.decision is Decision.HOLD
    assert another.decision is Decision.FORWARD
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(500)) + b"\r\nlottery"
    assert screens(deep, rule).verdict.decision is Decision.FORWARD
    assert screens(b"X-Postern-Forwarded-By: r-2\r\n" + deep, rule).verdict.decision is Decision.FORWARD
    assert screens(b"X-Postern-Forwarded-By: r-1\r\n" + deep, rule).verdict.decision is Decision.HOLD


@pytest.mark.parametrize(
    "rule",
    [
        keyword(""),
        keyword(" \u200b"),
        keyword("x" * 1001),
        sender("not a domain"),
        attachment(AttachmentMatch.EXTENSION, "."),
        attachment(AttachmentMatch.NAME, ""),
        keyword("x", action=Action.FORWARD, forward_to="nobody"),
        keyword("x", action=Action.FORWARD, forward_to="a@b c.example"),
        keyword("x", action=Action.FORWARD, forward_to="a\r\nX: y@b.example"),
    ],
)
def test_a_policy_that_does_not_compile_is_refused(rule: Rule) -> None:
    with pytest.raises(ValueError):
        compile_policy(ScreeningPolicy(revision=1, rules=(rule,)))


@pytest.mark.parametrize(
    "fields",
    [
        {"max_deliveries": 0},
        {"screening_timeout_s": 0.0},
        {"screening_timeout_s": float("nan")},
        {"default_route": "not a token"},
        {"relay_domains": (RelayDomain(pattern="a.example", route="x.y"),)},
    ],
)
def test_a_policy_with_limits_that_no_message_survives_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        compile_policy(ScreeningPolicy(revision=1, **fields))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    phrase=st.text(alphabet=st.characters(exclude_categories=["C", "Z", "M"]), min_size=1, max_size=8),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_any_phrase_is_found_in_any_surroundings(screens: Screens, phrase: str, before: str, after: str) -> None:
    raw = b"Subject: s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + f"{before} {phrase} {after}".encode()
    try:
        rule = keyword(phrase)
        compile_policy(ScreeningPolicy(revision=1, rules=(rule,)))
    except ValueError:
        return  # nothing of it is visible
    assert screens(raw, rule).verdict.decision is Decision.HOLD
    assert screens(raw, rule) == screens(raw, rule)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_any_bytes_get_a_verdict(screens: Screens, raw: bytes) -> None:
    rules = (keyword("a", scope=KeywordScope.HEADER), attachment(AttachmentMatch.SIZE, larger_than=10), sender("example.com"))
    assert screens(raw, *rules).verdict.decision in set(Decision)
