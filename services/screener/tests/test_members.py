"""Keywords in archives: what is found of every kind of file in them and where, what it takes to have them opened, and what happens where they cannot be."""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.archives import by_libarchive, compound_file, docx, encrypted_zip, need_libarchive, tar_of, zip_of
from postern_core.changes import StripAttachments
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import accepted_at, new_queue_id
from postern_core.policy import (
    AllOf,
    AttachmentCondition,
    AttachmentMatch,
    Condition,
    KeywordCondition,
    KeywordScope,
    Not,
    Rule,
    RuleMode,
    ScreeningPolicy,
    SenderCondition,
    UnscannableAction,
    UnscannablePolicy,
)
from postern_core.policy.why_not import Outcome, explain
from postern_core.verdict import Action, Decision, HoldReason, Verdict
from postern_screener import bounded_texts
from postern_screener.checks import contents
from postern_screener.contents import message
from postern_screener.ruleset import Ruleset, compile_policy
from postern_screener.screening import Screened, screen
from postern_screener.trying import try_out

need_libarchive()
ENVELOPE: Final = Envelope(
    id=(queue_id := new_queue_id()),
    gate=Gate.ANON,
    reverse_path="x@sender.example",
    recipients=(Recipient(n=0, address="a@relay.example"),),
    size_bytes=100,
    accepted_at=accepted_at(queue_id),
    client=Client(address="127.0.0.1"),
)
LOTTERY: Final = KeywordCondition(phrases=("the lottery",), scope=KeywordScope.ALL)
NOBODY: Final = SenderCondition(patterns=("nobody@sender.example",))
ENCRYPTED_OFFICE: Final = compound_file({"EncryptionInfo": b"x", "EncryptedPackage": b"y"})


def mail(*attachments: tuple[str, bytes], text: str = "hello") -> bytes:
    made = EmailMessage(policy=SMTP)
    made["From"], made["Subject"] = "x@sender.example", "subject"
    made.set_content(text)
    for name, content in attachments:
        made.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    return made.as_bytes()


def a_rule(condition: Condition, rule_id: str = "r", **fields: object) -> Rule:
    return msgspec.structs.replace(Rule(id=rule_id, name=rule_id, condition=condition, action=Action.HOLD), **fields)


def rules(*conditions: Condition | Rule, unscannable: UnscannablePolicy | None = None) -> Ruleset:
    made = tuple(each if isinstance(each, Rule) else a_rule(each, f"r{n}") for n, each in enumerate(conditions))
    return compile_policy(ScreeningPolicy(revision=1, rules=made, unscannable=unscannable or UnscannablePolicy()))


def screened(body: bytes, *conditions: Condition | Rule) -> Screened:
    return screen(ENVELOPE, body, rules(*conditions))


def verdict_of(body: bytes, *conditions: Condition | Rule) -> Verdict:
    return screened(body, *conditions).verdict


def letter() -> bytes:
    made = EmailMessage(policy=SMTP)
    made["From"], made["Subject"] = "y@inner.example", "größe of headerword"
    made.set_content("Пароль bodyword", charset="koi8-r", cte="base64")
    made.add_attachment(zip_of({"x.txt": b"deep attachedword"}), maintype="application", subtype="zip", filename="x.zip")
    return made.as_bytes()


MAIL: Final = zip_of({"m.eml": letter(), "cur/1.host:2,S": letter().replace(b"headerword", b"maildirword")})


# --- what is found, and where


@pytest.mark.parametrize(
    ("name", "content", "phrase", "chain", "offset", "excerpt"),
    [
        (
            "a.tar.gz",
            tar_of({"b.zip": zip_of({"dir/c.txt": "ü in the  \r\n Lottery".encode()})}, "w:gz"),
            "the lottery",
            ("a.tar.gz", "b.zip", "dir/c.txt"),
            6,
            "the Lottery",
        ),
        ("a.zip", zip_of({"b.docx": docx(word__footer1_xml=b"<w:p>footword</w:p>")}), "footword", ("a.zip", "b.docx"), 0, None),
        ("a.zip", zip_of({"b.html": b"<p>lot<b>te</b>ry"}), "lottery", ("a.zip", "b.html"), 3, "lottery"),
        ("a.zip", zip_of({"b.txt": "utfword".encode("utf-16-le")}), "utfword", ("a.zip", "b.txt"), 0, "utfword"),
        ("a.zip", zip_of({"b": b'{"key": "jsonword"}'}), "jsonword", ("a.zip", "b"), 9, "jsonword"),
        ("a.7z", by_libarchive("7zip", {"b.csv": b"1;sevenword"}), "sevenword", ("a.7z", "b.csv"), 2, "sevenword"),
        (
            "a.docx",
            docx(word__embeddings__b_csv=b"1;sheetword"),
            "sheetword",
            ("a.docx", "word/embeddings/b.csv"),
            2,
            "sheetword",
        ),
        ("a.zip", MAIL, "größe of headerword", ("a.zip", "m.eml", "header"), 31, None),
        ("a.zip", MAIL, "пароль bodyword", ("a.zip", "m.eml", "1"), 0, "Пароль bodyword"),
        ("a.zip", MAIL, "attachedword", ("a.zip", "m.eml", "x.zip", "x.txt"), 5, "attachedword"),
        ("a.zip", MAIL, "größe of maildirword", ("a.zip", "cur/1.host:2,S", "header"), 31, None),
        ("a.zip", zip_of({"b.bin": b"\x00\x01binaryword"}), "binaryword", None, 0, None),
        ("a.zip", zip_of({"b.docx": docx()}), "w:document", None, 0, None),
    ],
)
def test_a_phrase_is_found_in_every_kind_of_file_in_an_archive(
    name: str, content: bytes, phrase: str, chain: tuple[str, ...] | None, offset: int, excerpt: str | None
) -> None:
    body = mail((name, content))
    for scope in KeywordScope:
        findings = verdict_of(body, KeywordCondition(phrases=(phrase,), scope=scope)).findings
        if chain is None or scope not in (KeywordScope.ALL, KeywordScope.ATTACHMENTS):
            assert findings == ()
            continue
        [finding] = findings
        assert (finding.part, finding.chain, finding.offset) == ("2", chain, offset)
        assert finding.excerpt == (excerpt or phrase)
        assert finding.length >= len(phrase)


@given(st.text(st.sampled_from("ab é\r\n"), max_size=40), st.sampled_from(["utf-8", "cp1252"]))
def test_the_place_in_a_member_is_exact(before: str, charset: str) -> None:
    written = f"{before}needle{before}".encode(charset)
    [finding] = verdict_of(
        mail(("a.zip", zip_of({"b.txt": written}))), KeywordCondition(phrases=("needle",), scope=KeywordScope.ALL)
    ).findings
    assert (finding.part, finding.chain) == ("2", ("a.zip", "b.txt"))
    assert written[finding.offset : finding.offset + finding.length] == b"needle"


@pytest.mark.parametrize("at", [0, 995, 900, 1000, 1900, 1995, 2987])
@pytest.mark.parametrize("filler", [b"a line of text\r\n", b"x"])
def test_a_large_text_is_searched_to_its_end_and_no_word_is_cut(monkeypatch: pytest.MonkeyPatch, at: int, filler: bytes) -> None:
    monkeypatch.setattr(bounded_texts, "PIECE", 1000)
    monkeypatch.setattr(bounded_texts, "OVERLAP", 100)
    whole = bytearray((filler * 3000)[:3000])
    whole[at : at + 13] = b" the lottery "
    condition = KeywordCondition(phrases=("the lottery", "ext"), whole_word=True, scope=KeywordScope.ALL)
    for name in ("b.log", "b.html"):
        [finding] = verdict_of(mail(("a.zip", zip_of({name: bytes(whole)}))), condition).findings
        assert (finding.chain, finding.offset, finding.length) == (("a.zip", name), at + 1, 11)


def test_a_large_page_is_read_as_its_reader_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_texts, "PIECE", 1000)
    monkeypatch.setattr(bounded_texts, "OVERLAP", 100)
    page = b"<p>word</p>\r\n" * 200 + b"the <b>lot</b>tery"
    [finding] = verdict_of(mail(("a.zip", zip_of({"b.html": page}))), LOTTERY).findings
    assert (finding.offset, finding.excerpt) == (2600, "the lottery")


def test_no_more_text_is_decoded_than_of_any_other_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_texts, "MAX_TEXT", 100_000)
    large = "größer ".encode() * 20_000
    for attached in (("a.zip", zip_of({"b.txt": large + b"the lottery"})), ("a.json", large + b"the lottery")):
        verdict = verdict_of(mail(attached), LOTTERY)
        assert (verdict.hold_reason, verdict.findings) == (HoldReason.LIMIT, ())
        assert "octets of text to decode" in verdict.detail
    assert verdict_of(mail(("a.zip", zip_of({"b.txt": b"the lottery" + large}))), LOTTERY).hold_reason is HoldReason.RULE
    halves = zip_of({"b.txt": large[:70_000], "c.txt": large[:70_000]})
    assert verdict_of(mail(("a.zip", halves)), LOTTERY).hold_reason is HoldReason.LIMIT


def test_different_phrases_are_counted_in_the_message_and_in_archives_together() -> None:
    condition = KeywordCondition(phrases=("alpha", "beta", "gamma"), scope=KeywordScope.ALL, at_least=3)
    archive = zip_of({"1.txt": b"beta beta", "2.txt": b"gamma"})
    assert verdict_of(mail(("a.zip", archive)), condition).decision is Decision.PASS
    findings = verdict_of(mail(("a.zip", archive), text="alpha"), condition).findings
    assert [(each.part, each.chain) for each in findings] == [("1", ()), ("2", ("a.zip", "1.txt")), ("2", ("a.zip", "2.txt"))]


def test_every_archive_that_a_phrase_is_in_is_stripped() -> None:
    archives = [("a.zip", zip_of({"1.txt": b"the lottery"})), ("b.zip", zip_of({"1.txt": b"hi"}))]
    rule = a_rule(LOTTERY, action=Action.CONTINUE, changes=(StripAttachments(),))
    found = screened(mail(*archives, ("c.zip", zip_of({"2.txt": b"The Lottery"}))), rule)
    assert [made.part for made in found.verdict.changes] == ["2", "4"]


def test_attachment_conditions_see_what_is_attached_to_a_message_in_an_archive() -> None:
    condition = AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("txt",), inside=True)
    [finding] = verdict_of(mail(("a.zip", MAIL)), condition).findings
    assert finding.chain == ("a.zip", "m.eml", "x.zip", "x.txt")
    everything = AttachmentCondition(match=AttachmentMatch.WILDCARD, values=("*",), inside=True)
    tried = try_out(ENVELOPE, mail(("a.zip", zip_of({"m.eml": letter()}))), rules(everything), places=True)
    # header and text of the message are no files
    assert [each.chain[1:] for each in tried.places] == [(), ("m.eml",), ("m.eml", "x.zip"), ("m.eml", "x.zip", "x.txt")]


def test_a_message_in_a_message_in_an_archive_is_read_once() -> None:
    inner = mail(text="the lottery")
    tried = try_out(ENVELOPE, mail(("a.zip", zip_of({"m.eml": mail(("n.eml", inner))}))), rules(LOTTERY), places=True)
    # as the part that it is, and in the file that it is attached as
    assert [each.chain for each in tried.places] == [("a.zip", "m.eml", "n.eml"), ("a.zip", "m.eml", "2.1")]


def test_a_message_in_an_archive_that_is_too_large_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message, "MAX_MESSAGE", 100)
    verdict = verdict_of(mail(("a.zip", MAIL)), LOTTERY)
    assert (verdict.hold_reason, verdict.detail) == (HoldReason.LIMIT, "part 2: message: more than 100 octets, in 'a.zip/m.eml'")


@pytest.mark.parametrize(("name", "reason"), [("m.eml", HoldReason.MALFORMED), ("notes.txt", None)])
def test_a_message_that_reads_in_two_ways_is_one_in_an_archive_too(name: str, reason: HoldReason | None) -> None:
    inner = b"From: a\r\nTo: b\r\nSubject: c\r\nno field\r\n\r\nhello"
    assert verdict_of(mail(("a.zip", zip_of({name: inner}))), LOTTERY).hold_reason is reason


# --- when they are opened


def test_nothing_is_opened_unless_a_rule_comes_to_it() -> None:
    body = mail(("a.zip", encrypted_zip()))
    both = msgspec.structs.replace(LOTTERY, scope=KeywordScope.BOTH)
    for conditions in ((both,), (AllOf(of=(NOBODY, LOTTERY)),), (a_rule(Not(of=NOBODY), action=Action.ALLOW), LOTTERY)):
        verdict = verdict_of(body, *conditions)
        assert (verdict.decision, verdict.obstacles) == (Decision.PASS, ())
    for condition in (LOTTERY, Not(of=LOTTERY), AllOf(of=(Not(of=NOBODY), LOTTERY))):
        assert verdict_of(body, condition).obstacles != ()


def test_attachments_are_walked_through_once_for_all_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    walks, walked = 0, contents.opened

    def counted(*given: object) -> object:
        nonlocal walks
        walks += 1
        return walked(*given)

    monkeypatch.setattr(contents, "opened", counted)
    inside = AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",), inside=True)
    other = KeywordCondition(phrases=("absent",), scope=KeywordScope.ATTACHMENTS)
    body = mail(("a.zip", zip_of({"b.txt": b"the lottery", "c.exe": b"x"})))
    for order in ((inside, other, LOTTERY), (LOTTERY, other, inside)):
        walks = 0
        assert {each.chain for each in verdict_of(body, *order).findings} == {("a.zip", "b.txt"), ("a.zip", "c.exe")}
        assert walks == 1
    walks = 0
    assert verdict_of(mail(("a.txt", b"the lottery"), ("b.png", b"\x89PNG\r\n\x1a\n")), other, LOTTERY).findings
    assert walks == 0


def test_what_nobody_opened_is_not_blamed() -> None:
    body = mail(("a.zip", zip_of({"b.txt": b"the lottery"})), text="body")
    made = (
        a_rule(AllOf(of=(NOBODY, LOTTERY)), "not come to"),
        a_rule(KeywordCondition(phrases=("body",)), "first"),
        a_rule(LOTTERY, "later"),
        a_rule(KeywordCondition(phrases=("absent",)), "absent"),
    )
    verdict = verdict_of(body, *made)
    told = [(each.rule.id, each.outcome, each.path) for each in explain(made, verdict.criteria, verdict.unasked)]
    assert told == [
        ("not come to", Outcome.FAILED, "condition.of.0"),
        ("first", Outcome.DECIDED, ""),
        ("later", Outcome.UNKNOWN, ""),
        ("absent", Outcome.FAILED, "condition"),
    ]
    made = (a_rule(AllOf(of=(LOTTERY, NOBODY)), "elsewhere"), a_rule(LOTTERY, "watching", mode=RuleMode.MONITOR))
    verdict = verdict_of(body, *made)
    told = [(each.rule.id, each.outcome, each.path) for each in explain(made, verdict.criteria, verdict.unasked)]
    assert told == [("elsewhere", Outcome.FAILED, "condition.of.1"), ("watching", Outcome.MONITORED, "")]
    verdict = verdict_of(mail(("a.zip", zip_of({"b.txt": b"hi"}))), *made)
    assert (verdict.unasked, verdict.criteria) == ((), ())


# --- what cannot be read


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.zip", encrypted_zip("b.txt", b"the lottery"), HoldReason.ENCRYPTED),
        ("a.docx", ENCRYPTED_OFFICE, HoldReason.ENCRYPTED),
        ("a.zip", zip_of({"b.docx": ENCRYPTED_OFFICE}), HoldReason.ENCRYPTED),
        ("a.zip", zip_of({"b.txt": b"hello"})[:-30], HoldReason.MALFORMED),
        ("a.zip", zip_of({"0": bytes(1 << 26), "b.txt": b"the lottery"}), HoldReason.LIMIT),
        ("a.gz", tar_of({str(n): b"x" for n in range(2001)}, "w:gz"), HoldReason.LIMIT),
    ],
)
def test_a_keyword_rule_does_not_pass_what_it_could_not_read(name: str, content: bytes, reason: HoldReason) -> None:
    """The policy for unscannable mail decides, as for conditions on what lies in attachments, and for archives and documents alike."""
    body = mail((name, content))
    verdict = verdict_of(body, LOTTERY)
    assert (verdict.decision, verdict.hold_reason, verdict.findings) == (Decision.HOLD, reason, ())
    assert verdict_of(body, msgspec.structs.replace(LOTTERY, scope=KeywordScope.BOTH)).decision is Decision.PASS
    answers = dict.fromkeys(("encrypted", "malformed", "limit"), UnscannableAction.PASS)
    passed = screen(ENVELOPE, body, rules(LOTTERY, unscannable=UnscannablePolicy(**answers))).verdict
    assert (passed.decision, passed.obstacles) == (Decision.PASS, verdict.obstacles)


def test_what_was_found_before_a_limit_counts() -> None:
    archive = zip_of({"b.txt": b"the lottery", "0": bytes(1 << 26)})
    verdict = verdict_of(mail(("a.zip", archive)), LOTTERY)
    assert (verdict.hold_reason, verdict.findings[0].chain) == (HoldReason.RULE, ("a.zip", "b.txt"))
    assert verdict.obstacles


# --- trials


def test_a_trial_tells_every_place_in_archives() -> None:
    archive = zip_of({"1.txt": b"the lottery", "2.txt": b"hi: The Lottery"})
    tried = try_out(ENVELOPE, mail(("a.zip", archive), text="the lottery"), rules(LOTTERY), places=True)
    assert [(each.part, each.chain, each.offset) for each in tried.places] == [
        ("1", (), 0),
        ("2", ("a.zip", "1.txt"), 0),
        ("2", ("a.zip", "2.txt"), 4),
    ]
