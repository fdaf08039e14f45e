"""Conditions about what a message says of itself: header fields, regular expressions, thresholds, lists, charsets, scripts, authentication."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterable
from email.message import EmailMessage
from email.policy import SMTP

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.authentication import Method, MethodResult, Result
from postern_core.envelope import Envelope
from postern_core.policy import (
    AttachmentCondition,
    AttachmentMatch,
    AuthenticationCondition,
    CharsetCondition,
    ClientCondition,
    Condition,
    HeaderCondition,
    HeaderMatch,
    KeywordCondition,
    KeywordScope,
    ListKind,
    NamedList,
    Not,
    Rule,
    ScreeningPolicy,
    Script,
    ScriptCondition,
    SenderCondition,
    UserCondition,
)
from postern_core.verdict import Action, Decision, Verdict
from postern_screener.checks.facts import MAX_CHARACTERS
from postern_screener.checks.patterns import Patterns
from postern_screener.checks.phrases import Phrases
from postern_screener.ruleset import compile_policy
from postern_screener.screening import screen

AnEnvelope = Callable[..., Envelope]
RUSSIAN = "Привет, это письмо написано по-русски."
LISTS = (
    NamedList.of("words", ListKind.PHRASES, ["alpha", "beta gamma", "omega"]),
    NamedList.of("patterns", ListKind.EXPRESSIONS, [r"psi\d+"]),
    NamedList.of("senders", ListKind.SENDERS, ["*.bulk.example", "sender.example"]),
    NamedList.of("programs", ListKind.EXTENSIONS, ["exe", "scr"]),
    NamedList.of("names", ListKind.FILE_NAMES, ["invoice.pdf"]),
    NamedList.of("networks", ListKind.NETWORKS, ["127.0.0.0/8"]),
    NamedList.of("users", ListKind.USERS, ["Ann"]),
    NamedList.of("nobody", ListKind.USERS, []),
)


@pytest.fixture
def verdict_of(an_envelope: AnEnvelope) -> Callable[..., Verdict]:
    def run(body: bytes, condition: Condition, lists: Iterable[NamedList] = LISTS, **envelope: object) -> Verdict:
        rule = Rule(id="r", name="r", condition=condition, action=Action.HOLD)
        ruleset = compile_policy(ScreeningPolicy(revision=1, rules=(rule,), lists=tuple(lists)))
        return screen(msgspec.structs.replace(an_envelope(), **envelope), body, ruleset).verdict

    return run


@pytest.fixture
def holds(verdict_of: Callable[..., Verdict]) -> Callable[..., bool]:
    return lambda *given, **envelope: verdict_of(*given, **envelope).decision is Decision.HOLD


Holds = Callable[..., bool]
VerdictOf = Callable[..., Verdict]


def mail(body: str = "Hello.", *fields: str, content_type: str = "") -> bytes:
    lines = ["From: x@sender.example", *fields, *([f"Content-Type: {content_type}"] if content_type else []), "", body, ""]
    return "\r\n".join(lines).encode()


# --- header fields


@pytest.mark.parametrize(
    ("match", "values", "field", "expected"),
    [
        (HeaderMatch.PRESENT, (), "X-Mailer: anything", True),
        (HeaderMatch.PRESENT, (), "x-MAILER:", True),
        (HeaderMatch.PRESENT, (), "X-Mailer2: anything", False),
        (HeaderMatch.CONTAINS, ("bulk mailer",), "X-Mailer: The BULK\r\n\tMailer 3", True),
        (HeaderMatch.CONTAINS, ("bulk mailer",), "Subject: bulk mailer", False),
        (HeaderMatch.CONTAINS, ("größe",), "X-Mailer: =?utf-8?q?GR=C3=96SSE?=", True),
        (HeaderMatch.CONTAINS, ("lottery",), "X-Mailer: lot=?utf-8?q?tery?=", True),
        (HeaderMatch.EQUALS, ("bulk mailer",), "X-Mailer:  Bulk   mailer ", True),
        (HeaderMatch.EQUALS, ("bulk",), "X-Mailer: bulk mailer", False),
        (HeaderMatch.REGEX, (r"^bulk v[0-9]+\.",), "X-Mailer: Bulk V12.3", True),
        (HeaderMatch.REGEX, (r"^bulk$",), "X-Mailer: no bulk", False),
        (HeaderMatch.REGEX, (r"\d{3}", "nothing"), "X-Mailer: a\r\nX-Mailer: b123", True),
    ],
)
def test_header_fields(holds: Holds, match: HeaderMatch, values: tuple[str, ...], field: str, expected: bool) -> None:
    condition = HeaderCondition(name="X-Mailer", match=match, values=values)
    assert holds(mail("bulk mailer", field), condition) is expected
    assert holds(mail("bulk mailer", field), Not(of=condition)) is not expected


def test_only_the_message_s_own_header_counts(holds: Holds) -> None:
    inner = "X-Mailer: bulk\r\n\r\nhello"
    assert not holds(mail(inner, content_type="message/rfc822"), HeaderCondition(name="X-Mailer"))
    assert not holds(mail(inner), HeaderCondition(name="X-Mailer"))


def test_where_a_header_field_matches_is_told(verdict_of: VerdictOf) -> None:
    body = mail("hi", "Subject: bulk", "X-Mailer: one", "X-Mailer: two bulk mailers")
    for match, values in ((HeaderMatch.CONTAINS, ("bulk mailer",)), (HeaderMatch.REGEX, ("bulk.mailer",))):
        [finding] = verdict_of(body, HeaderCondition(name="x-mailer", match=match, values=values)).findings
        decoded = b"From: x@sender.example\nSubject: bulk\nX-Mailer: one\nX-Mailer: two "
        assert (finding.part, finding.offset, finding.excerpt) == ("header", len(decoded), "bulk mailer")
    [finding] = verdict_of(body, HeaderCondition(name="X-Mailer")).findings
    assert (finding.part, finding.excerpt) == ("header", "one")


# --- regular expressions, thresholds, attachments


@pytest.mark.parametrize(
    ("expression", "text", "excerpt"),
    [
        (r"\bv[i1]agra\b", "buy V1AGRA now", "V1AGRA"),
        (r"\bviagra\b", "viagras", None),
        ("STRASSE", "Hauptstraße 1", "straße"),
        (r"^second .*line$", "first\r\nSecond fine LINE\r\nthird", "Second fine LINE"),
        (r"one\s+two", "one \r\n two", "one two"),
        (r"\p{Cyrillic}{4,}", f"hello {RUSSIAN}", "Привет"),
        (r"card:? (\d{4} ?){4}", "my card: 1234 5678 1234 5678 ok", "card: 1234 5678 1234 567"),
        (r"x{2000}y", "a" + "x" * 2000 + "y", None),
    ],
)
def test_regular_expressions(verdict_of: VerdictOf, expression: str, text: str, excerpt: str | None) -> None:
    body = mail(text, content_type="text/plain; charset=utf-8")
    verdict = verdict_of(body, KeywordCondition(expressions=(expression,), scope=KeywordScope.BODY))
    if excerpt is not None:
        assert verdict.findings[0].excerpt.startswith(excerpt)
        # the offset is that of the bytes
        part = body.partition(b"\r\n\r\n")[2]
        told = part[verdict.findings[0].offset :].decode()
        assert told.startswith(excerpt.split()[0])
    else:
        assert (verdict.decision is Decision.HOLD) == (expression == "x{2000}y")


def test_an_expression_that_does_not_compile_names_the_rule_family() -> None:
    rule = Rule(id="r", name="r", condition=KeywordCondition(expressions=("(",)), action=Action.HOLD)
    with pytest.raises(ValueError, match=r"keyword rule: .*parenthesis"):
        compile_policy(ScreeningPolicy(revision=1, rules=(rule,)))
    with pytest.raises(ValueError, match="at most"):
        Patterns([(0, [f"x{n}" for n in range(1001)])])
    with pytest.raises(ValueError, match="over"):
        Patterns([(0, ["x" * 501])])


def test_a_threshold_counts_different_phrases_in_all_of_the_message(verdict_of: VerdictOf) -> None:
    condition = KeywordCondition(phrases=("alpha", "beta", "ALPHA", "gamma"), expressions=(r"psi\d",), at_least=3)
    assert verdict_of(mail("alpha beta alpha ALPHA beta"), condition).decision is Decision.PASS
    verdict = verdict_of(mail("beta\r\npsi7 beta", "Subject: alpha"), condition)
    assert verdict.decision is Decision.HOLD
    assert [(each.part, each.excerpt) for each in verdict.findings] == [("header", "alpha"), ("1", "beta"), ("1", "psi7")]
    assert verdict_of(mail("beta psi7 psi8 psi9"), condition).decision is Decision.PASS


def test_a_threshold_does_not_disturb_others_on_the_same_phrases(an_envelope: AnEnvelope) -> None:
    several = KeywordCondition(phrases=("alpha", "beta"), at_least=2)
    one = KeywordCondition(phrases=("alpha", "beta"))
    rules = tuple(Rule(id=name, name=name, condition=each, action=Action.HOLD) for name, each in (("2", several), ("1", one)))
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=rules))
    found = screen(an_envelope(), mail("alpha"), ruleset).verdict.findings
    assert [each.rule_id for each in found] == ["1"]
    found = screen(an_envelope(), mail("alpha beta"), ruleset).verdict.findings
    assert [(each.rule_id, each.excerpt) for each in found] == [("2", "alpha"), ("2", "beta"), ("1", "alpha")]


def with_attachments() -> bytes:
    inner = EmailMessage(policy=SMTP)
    inner["From"], inner["Subject"] = "y@inner.example", "innersubject"
    inner.set_content("innerbody")
    inner.add_attachment("innerattached", filename="inner.txt")
    message = EmailMessage(policy=SMTP)
    message["From"], message["Subject"] = "x@sender.example", "outersubject"
    message.set_content("outerbody")
    message.add_attachment("attachedtext", filename="a.txt")
    message.add_attachment(b'{"key": "jsonvalue"}', maintype="application", subtype="json", filename="a.json")
    message.add_attachment("octetstext größe".encode(), maintype="application", subtype="octet-stream", filename="b.txt")
    message.add_attachment("utfsixteen".encode("utf-16"), maintype="application", subtype="octet-stream", filename="c.txt")
    message.add_attachment(b"\x00\x01binaryword\x02", maintype="application", subtype="octet-stream", filename="c.bin")
    message.add_attachment(inner)
    document = io.BytesIO()
    with zipfile.ZipFile(document, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", "<w:document><w:p><w:r><w:t>documentword</w:t></w:r></w:p></w:document>")
    message.add_attachment(document.getvalue(), maintype="application", subtype="octet-stream", filename="d.docx")
    return message.as_bytes()


H, B, A = KeywordScope.HEADER, KeywordScope.BODY, KeywordScope.ATTACHMENTS


@pytest.mark.parametrize(
    ("word", "scopes", "part"),
    [
        ("outersubject", {H}, "header"),
        ("outerbody", {B}, "1"),
        ("attachedtext", {B, A}, "2"),
        ("jsonvalue", {A}, "3"),
        ("größe", {A}, "4"),
        ("utfsixteen", {A}, "5"),
        ("binaryword", set(), ""),
        ("innersubject", {H, B, A}, "7.header"),
        ("innerbody", {B, A}, "7.1"),
        ("innerattached", {B, A}, "7.2"),
        ("documentword", {A}, "8"),
    ],
)
def test_which_scope_sees_which_text(verdict_of: VerdictOf, word: str, scopes: set[KeywordScope], part: str) -> None:
    together = {KeywordScope.BOTH: {H, B}, KeywordScope.ALL: {H, B, A}}
    for scope in KeywordScope:
        findings = verdict_of(with_attachments(), KeywordCondition(phrases=(word,), scope=scope)).findings
        wanted = bool(together.get(scope, {scope}) & scopes)
        assert [each.part for each in findings] == [part] * wanted, scope


# --- lists


@pytest.mark.parametrize(
    ("condition", "change"),
    [
        (KeywordCondition(lists=("words",)), {}),
        (KeywordCondition(phrases=("nothing",), lists=("patterns",)), {}),
        (KeywordCondition(lists=("words", "patterns"), at_least=3), {}),
        (HeaderCondition(name="Subject", match=HeaderMatch.CONTAINS, lists=("words",)), {}),
        (HeaderCondition(name="Subject", match=HeaderMatch.REGEX, lists=("patterns",)), {}),
        (SenderCondition(lists=("senders",)), {}),
        (AttachmentCondition(match=AttachmentMatch.EXTENSION, lists=("programs",)), {}),
        (AttachmentCondition(match=AttachmentMatch.NAME, lists=("names",)), {}),
        (ClientCondition(lists=("networks",)), {}),
        (UserCondition(lists=("users",)), {"user": "ann"}),
    ],
)
def test_a_condition_takes_values_from_lists(
    holds: Holds, an_envelope: AnEnvelope, condition: Condition, change: dict[str, str]
) -> None:
    message = EmailMessage(policy=SMTP)
    message["From"], message["Subject"] = "x@sender.example", "psi12 omega"
    message.set_content("beta\ngamma")
    for name in ("a.exe", "invoice.pdf"):
        message.add_attachment(b"x", maintype="application", subtype="octet-stream", filename=name)
    client = msgspec.structs.replace(an_envelope().client, **change)
    assert holds(message.as_bytes(), condition, client=client)
    empty = [msgspec.structs.replace(each, text="") for each in LISTS]
    assert not holds(message.as_bytes(), condition, empty, client=client)


def test_an_empty_list_of_users_is_nobody(holds: Holds, an_envelope: AnEnvelope) -> None:
    client = msgspec.structs.replace(an_envelope().client, user="ann")
    assert not holds(mail(), UserCondition(lists=("nobody",)), client=client)
    assert holds(mail(), UserCondition(), client=client)


@pytest.mark.parametrize("condition", [KeywordCondition(lists=("gone",)), SenderCondition(lists=("words",))])
def test_a_list_that_is_not_there_or_of_another_kind_does_not_compile(condition: Condition) -> None:
    rule = Rule(id="r", name="r", condition=condition, action=Action.HOLD)
    with pytest.raises(ValueError, match="list"):
        compile_policy(ScreeningPolicy(revision=1, rules=(rule,), lists=LISTS))


# --- charsets and scripts


@pytest.mark.parametrize(
    ("content_type", "body", "charset", "expected"),
    [
        ('text/plain; charset="KOI8-R"', b"hello", "koi8-r", True),
        ("text/plain; charset=koi8_r", RUSSIAN.encode("koi8-r"), "KOI8-R", True),
        ("text/plain; charset=windows-1251", RUSSIAN.encode("cp1251"), "cp1251", True),
        ("text/plain; charset=x-unheard-of", b"hello", "X-Unheard-Of", True),
        ("text/plain", RUSSIAN.encode(), "utf-8", True),
        ("text/plain; charset=us-ascii", RUSSIAN.encode(), "utf-8", True),
        ("text/plain", b"hello", "utf-8", False),
        ("text/plain", b"\xff\xfeh\x00i\x00", "utf-16", True),
        ("text/plain", b"\xe9t\xe9", "windows-1252", False),
        ("text/plain; charset=iso-8859-1", b"\xe9t\xe9", "windows-1252", True),
        ("application/octet-stream; charset=koi8-r", b"hello", "koi8-r", False),
    ],
)
def test_charsets(holds: Holds, content_type: str, body: bytes, charset: str, expected: bool) -> None:
    message = f"From: x@sender.example\r\nContent-Type: {content_type}\r\n\r\n".encode() + body
    assert holds(message, CharsetCondition(charsets=("utf-7", charset))) is expected


@pytest.mark.parametrize(
    ("text", "scripts", "percent", "expected"),
    [
        (RUSSIAN, (Script.CYRILLIC,), 90, True),
        (RUSSIAN, (Script.LATIN,), 0, False),
        ("hello " + "при", (Script.CYRILLIC,), 37, True),
        ("hello " + "при", (Script.CYRILLIC,), 38, False),
        ("hello " + "при", (Script.CYRILLIC, Script.CYRILLIC, Script.HAN), 38, False),
        ("你好世界 こんにちは", (Script.HAN, Script.KANA), 99, True),
        ("한국어", (Script.HANGUL,), 99, True),
        ("مرحبا بالعالم", (Script.ARABIC,), 99, True),
        ("שלום עולם", (Script.HEBREW,), 99, True),
        ("γειά σου κόσμε", (Script.GREEK,), 99, True),
        ("สวัสดี", (Script.THAI,), 99, True),
        ("नमस्ते", (Script.DEVANAGARI,), 99, True),
        ("123 !?", (Script.LATIN,), 0, False),
        ("café Ünïcödé", (Script.LATIN,), 99.9, True),
        ("hello ᚠᚢᚦ", (Script.LATIN,), 70, False),
    ],
)
def test_scripts(holds: Holds, text: str, scripts: tuple[Script, ...], percent: float, expected: bool) -> None:
    condition = ScriptCondition(scripts=scripts, more_than_percent=percent)
    assert holds(mail(text, content_type="text/plain; charset=utf-8"), condition) is expected
    assert holds(mail(text, content_type="text/plain; charset=koi8-r"), condition) or not expected


def test_scripts_of_html_of_the_subject_and_not_of_attachments(verdict_of: VerdictOf) -> None:
    condition = ScriptCondition(scripts=(Script.CYRILLIC,), more_than_percent=50)
    html = mail(f"<p class='abcdefghijklmnopqrstuvwxyz'>{RUSSIAN}</p>", content_type="text/html; charset=utf-8")
    [finding] = verdict_of(html, condition).findings
    assert finding.excerpt == "100 % of the letters are cyrillic"
    assert verdict_of(mail("", "Subject: =?koi8-r?b?8NLJ18XU?="), condition).decision is Decision.HOLD
    message = EmailMessage(policy=SMTP)
    message["From"] = "x@sender.example"
    message.set_content("hello")
    message.add_attachment(RUSSIAN, filename="a.txt")
    assert verdict_of(message.as_bytes(), condition).decision is Decision.PASS


def test_letters_are_counted_up_to_a_bound(holds: Holds) -> None:
    # in lines: one of a million characters is malformed
    text = ("a" * 900 + "\r\n") * (MAX_CHARACTERS // 900 + 1) + ("ж" * 400 + "\r\n") * (3 * MAX_CHARACTERS // 400)
    assert not holds(
        mail(text, content_type="text/plain; charset=utf-8"), ScriptCondition(scripts=(Script.CYRILLIC,), more_than_percent=0)
    )


# --- authentication


def test_authentication_is_what_the_gate_found_and_no_field_says_otherwise(verdict_of: VerdictOf) -> None:
    condition = AuthenticationCondition(method=Method.DKIM, results=(Result.FAIL, Result.NONE))
    forged = mail("hi", "Authentication-Results: mx.example; dkim=fail")
    assert verdict_of(forged, condition).decision is Decision.PASS
    passed = MethodResult(method=Method.DKIM, result=Result.PASS)
    failed = MethodResult(method=Method.DKIM, result=Result.FAIL)
    assert (
        verdict_of(forged, condition, authentication=(passed, MethodResult(method=Method.SPF, result=Result.FAIL))).decision
        is Decision.PASS
    )
    [finding] = verdict_of(mail(), condition, authentication=(passed, failed)).findings
    assert (finding.part, finding.excerpt) == ("envelope", "dkim=fail")


# --- phrases, as they are kept


@given(
    phrases=st.lists(st.tuples(st.sampled_from(["ab", "b", "ab c", "c d", "é", "aé b"]), st.booleans()), max_size=12),
    text=st.text("abcd é\n_", max_size=40),
)
def test_phrases_are_found_where_a_plain_search_finds_them(phrases: list[tuple[str, bool]], text: str) -> None:
    searched = Phrases((n, whole, [phrase]) for n, (phrase, whole) in enumerate(phrases))
    data = text.encode()
    found = {owner for number in searched.find(data) for owner in searched.owners(number)}

    def stands(phrase: str, whole: bool) -> bool:
        inside = r"\s+".join(map(re.escape, phrase.split()))
        return re.search(rf"(?<!\w){inside}(?!\w)" if whole else inside, text) is not None

    assert found == {n for n, (phrase, whole) in enumerate(phrases) if stands(phrase, whole)}
    for number in searched.find(data):
        start, end = searched.span(number, data)
        assert data[start:end].split()


def test_ten_thousand_and_one_phrases_are_all_found() -> None:
    searched = Phrases([(0, False, (f"word{n:05d}" for n in range(10_001))), (1, False, ["word00000", "word10000"])])
    assert len(searched) == 10_001
    found = {number: searched.owners(number) for number in searched.find(b"word10000 word00000 word04999")}
    assert found == {0: (0, 1), 4999: (0,), 10_000: (0, 1)}
    assert searched.span(10_000, b"x word10000") == (2, 11)
