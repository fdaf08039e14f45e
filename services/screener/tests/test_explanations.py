"""What a verdict says of its reasons: exact places, the criteria that held, and the same for the same message and rules wherever it is screened."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.authentication import Method, Result
from postern_core.bus.topology import EVENTS
from postern_core.changes import AddDisclaimer, Notify, StripAttachments
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.events import EventBatch, TraceEvent
from postern_core.ids import accepted_at, new_queue_id
from postern_core.policy import (
    AllOf,
    AnyOf,
    AttachmentCondition,
    AttachmentMatch,
    AuthenticationCondition,
    CharsetCondition,
    ClientCondition,
    Condition,
    Criterion,
    DirectionCondition,
    HeaderCondition,
    KeywordCondition,
    LanguageCondition,
    MalformedCondition,
    Not,
    RecipientCondition,
    Rule,
    RuleMode,
    ScheduleCondition,
    ScreeningPolicy,
    Script,
    ScriptCondition,
    SenderCondition,
    SizeCondition,
    SpamCondition,
    UnscannableAction,
    UnscannablePolicy,
    UserCondition,
    VirusCondition,
    YaraCondition,
)
from postern_core.policy.matching import LAZY
from postern_core.policy.why_not import Outcome, explain
from postern_core.verdict import MOST_CRITERIA, Action, Decision, TextLanguage, Verdict
from postern_screener.checks.engines import engine_look
from postern_screener.checks.facts import look_of
from postern_screener.checks.properties import property_of
from postern_screener.companions import companions
from postern_screener.mime import parse_message
from postern_screener.ruleset import compile_policy
from postern_screener.sandbox import Sandbox, default_command
from postern_screener.screening import Screened, screen, to_be_kept
from postern_screener.text import fold

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
CLEAN = b"From: x@sender.example\r\nSubject: alpha\r\n\r\nbeta gamma\r\n"
SAMPLES: tuple[Criterion, ...] = (
    SenderCondition(patterns=("sender.example",)),
    AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",)),
    KeywordCondition(phrases=("alpha",)),
    RecipientCondition(patterns=("*.relay.example", "a@relay.example")),
    ScheduleCondition(timezone="UTC"),
    DirectionCondition(gates=(Gate.ANON,)),
    ClientCondition(networks=("127.0.0.1",)),
    UserCondition(),
    SizeCondition(larger_than_bytes=1),
    MalformedCondition(),
    HeaderCondition(name="Subject"),
    HeaderCondition(name="X-None"),
    CharsetCondition(charsets=("utf-8",)),
    ScriptCondition(scripts=(Script.LATIN,)),
    ScriptCondition(scripts=(Script.THAI,)),
    LanguageCondition(languages=("de",)),
    AuthenticationCondition(method=Method.SPF, results=(Result.FAIL,)),
)
OF_ENGINES: tuple[Criterion, ...] = (VirusCondition(), SpamCondition(at_least=5.0), YaraCondition())


def a_rule(condition: Condition, *, rule_id: str = "r", **fields: object) -> Rule:
    return msgspec.structs.replace(Rule(id=rule_id, name=rule_id, condition=condition, action=Action.HOLD), **fields)


def verdict_of(body: bytes, *rules: Rule) -> Verdict:
    return screen(ENVELOPE, body, compile_policy(ScreeningPolicy(revision=7, rules=rules))).verdict


# -- places

TEXTS = st.text(st.sampled_from("ab é ß Ｌ \u00ad\u200b İ ǆ 漢 𝔘 , \r\n"), max_size=60)
PHRASES = ("needle", "NEEDLE", "nee\u00addle", "Ｎeedle", "ne\u200bedle")


@given(
    TEXTS, st.sampled_from(PHRASES), TEXTS, st.sampled_from(["utf-8", "utf-16-le", "utf-16", "cp1252", "gb18030", "shift_jis"])
)
def test_a_place_in_a_text_is_exact(before: str, phrase: str, after: str, charset: str) -> None:
    phrase = phrase if phrase.encode(charset, "ignore").decode(charset) == phrase else "needle"
    content = f"{before}|{phrase}|{after}".encode(charset, "ignore")
    _assert_exact(content, f"text/plain; charset={charset}", charset)


MARKUP = st.lists(
    st.sampled_from(["a", " ", "é", "<b>", "</b>", "<p class='x>y'>", "&amp;", "&eacute;", "&#65;", "&lt", "<!-- x -->"]),
    max_size=12,
)


@given(MARKUP, st.sampled_from(["needle", "nee<b>dle", "n&#101;edle", "needl&#101;", "<i>needle</i>"]), MARKUP)
def test_a_place_in_html_is_exact_in_the_source(before: list[str], phrase: str, after: list[str]) -> None:
    content = "".join([*before, "|", phrase, "|", *after]).encode()
    # what is behind a comment or tag that nobody closed is not seen
    found = _assert_exact(content, "text/html; charset=utf-8", "utf-8")
    assert found.startswith("n")
    assert found.endswith(("e", "&#101;"))


def _assert_exact(content: bytes, content_type: str, charset: str) -> str:
    """The one finding covers the phrase, and nothing but it, in the decoded part. Returns what it covers."""
    head = f"From: x@sender.example\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode()
    body = head + base64.encodebytes(content).replace(b"\n", b"\r\n")
    verdict = verdict_of(body, a_rule(KeywordCondition(phrases=("needle",))))
    (finding,) = verdict.findings
    part = next(part for part in parse_message(body).parts if part.path == finding.part)
    covered = part.content()[finding.offset : finding.offset + finding.length].decode(
        charset if charset != "utf-16" else "utf-16-le"
    )
    plain = fold(covered.replace("<b>", "").replace("&#101;", "e"))
    assert plain == "needle"
    return covered


def test_places_of_wholes_have_no_length_and_those_in_headers_do() -> None:
    assert [(f.part, f.offset, f.length) for f in verdict_of(CLEAN, a_rule(SAMPLES[0])).findings] == [("envelope", 0, 0)]
    (finding,) = verdict_of(CLEAN, a_rule(KeywordCondition(phrases=("alpha",)))).findings
    assert (finding.part, finding.length) == ("header", 5)


# -- criteria

WORDS = st.sampled_from([KeywordCondition(phrases=(word,)) for word in ("alpha", "beta", "omega")])
conditions: st.SearchStrategy[Condition] = st.recursive(
    WORDS | st.sampled_from(SAMPLES),
    lambda inner: st.one_of(
        st.builds(lambda parts: AllOf(of=tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: AnyOf(of=tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: Not(of=part), inner),
    ),
    max_leaves=5,
)


@given(st.lists(st.tuples(conditions, st.none() | conditions, st.sampled_from(RuleMode)), min_size=1, max_size=5))
def test_what_is_written_down_of_a_message_tells_which_rules_matched(
    made: list[tuple[Condition, Condition | None, RuleMode]],
) -> None:
    rules = [a_rule(one, rule_id=f"r{n}", unless=unless, mode=mode) for n, (one, unless, mode) in enumerate(made)]
    verdict = verdict_of(CLEAN, *rules)
    told = explain(rules, verdict.criteria)
    decided = [each.rule.id for each in told if each.outcome is Outcome.DECIDED]
    assert decided == ([verdict.deciding.rule_id] if verdict.deciding else [])
    assert (verdict.decision is Decision.HOLD) == bool(decided)
    assert not any(each.outcome is Outcome.UNKNOWN for each in told)


def test_of_an_ordinary_message_nothing_is_written_down() -> None:
    rules = (
        a_rule(KeywordCondition(phrases=("omega",))),
        a_rule(AllOf(of=(DirectionCondition(gates=(Gate.ANON,)), SAMPLES[1])), rule_id="s"),
    )
    verdict = verdict_of(CLEAN, *rules)
    assert (verdict.findings, verdict.criteria, verdict.criteria_cut) == ((), (), False)


def test_so_many_criteria_are_written_down_and_no_more() -> None:
    body = b"From: x@sender.example\r\n\r\n" + b" ".join(b"w%dx" % n for n in range(MOST_CRITERIA + 1))
    verdict = verdict_of(
        body, *(a_rule(KeywordCondition(phrases=(f"w{n}x",)), rule_id=f"r{n}") for n in range(MOST_CRITERIA + 1))
    )
    assert (len(verdict.criteria), verdict.criteria_cut) == (MOST_CRITERIA, True)


def test_what_is_looked_at_lazily_is_what_the_record_takes_for_it() -> None:
    samples = (*SAMPLES, *OF_ENGINES)
    kinds = {type(sample) for sample in samples}
    looks = (property_of, engine_look, look_of)
    looked_at = {type(sample) for sample in samples if any(look(sample) is not None for look in looks)}
    assert looked_at | {RecipientCondition} == set(LAZY)
    missing = [kind.__name__ for kind in get_args(Criterion) if kind not in kinds]
    assert missing == []  # a new kind needs a sample here, and its place in LAZY where it is looked at lazily


def test_where_the_policy_keeps_no_excerpts_nothing_of_the_text_is_stored() -> None:
    rule = a_rule(KeywordCondition(phrases=("beta",)))
    for keep in (True, False):
        ruleset = compile_policy(ScreeningPolicy(revision=1, rules=(rule,), excerpts=keep))
        kept = to_be_kept(screen(ENVELOPE, CLEAN, ruleset), ruleset).verdict
        (finding,) = kept.findings
        assert (finding.excerpt, finding.part, finding.length) == ("beta" if keep else "", "1", 4)


HOSTILE_WORDS = "secret-project's name"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (f'From: a@b.example\r\nContent-Type: {HOSTILE_WORDS}/"x\r\n\r\nx\r\n', "different types: "),
        (f"From: a@b.example\r\n{HOSTILE_WORDS}: x\r\n\r\nx\r\n", "the field name "),
        (f"From: a@b.example\r\n\r\nbegin 644 {HOSTILE_WORDS}\r\n#0V%T\r\n\r\n", ": "),
        (
            f'From: a@b.example\r\nContent-Disposition: attachment; filename="{HOSTILE_WORDS}.zip"\r\n\r\nPK\x03\x04 broken\r\n',
            "is missing, in ",
        ),
    ],
)
@pytest.mark.parametrize("is_stripped", [False, True])
def test_without_excerpts_what_could_not_be_screened_is_told_without_the_words_of_the_message(
    body: str, kept: str, is_stripped: bool
) -> None:
    looking = a_rule(AttachmentCondition(match=AttachmentMatch.UNOPENED), mode=RuleMode.MONITOR)
    strip = a_rule(Not(of=UserCondition()), action=Action.CONTINUE, changes=(StripAttachments(every=True),))
    rules = (looking, strip) if is_stripped else (looking,)
    for keep in (True, False):
        ruleset = compile_policy(ScreeningPolicy(revision=1, rules=rules, excerpts=keep))
        verdict = to_be_kept(screen(ENVELOPE, body.encode(), ruleset), ruleset).verdict
        told = msgspec.json.encode(verdict).decode()
        assert ("secret-project" in told) is keep, told
        assert any(kept in obstacle.reason for obstacle in verdict.obstacles)


def test_a_notice_has_no_word_of_the_message_but_its_subject() -> None:
    """Was: what could not be screened was told with what it quotes of the header, and with names of files."""
    changes = (AddDisclaimer(text="mind this"), Notify(address="admin@relay.example"))
    tell = a_rule(Not(of=UserCondition()), action=Action.CONTINUE, changes=changes)
    unscannable = UnscannablePolicy(malformed=UnscannableAction.PASS)
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=(tell,), unscannable=unscannable))
    body = b"From: a@b.example\r\nSubject: beta\r\nContent-Transfer-Encoding: uu-secret-project\r\n\r\nx\r\n"
    screened = screen(ENVELOPE, body, ruleset)
    (told,) = companions(ENVELOPE, body, screened, ruleset)
    assert "secret-project" in screened.verdict.detail
    assert "secret-project" in screened.verdict.changes[0].detail  # why there is no disclaimer
    assert b"transfer encoding ..." in told.body
    assert b"beta" in told.body
    assert b"secret" not in told.body


def test_without_excerpts_the_name_of_a_rule_stays_as_it_is() -> None:
    rule = a_rule(KeywordCondition(phrases=("x",)))
    rule = msgspec.structs.replace(rule, name="don't")
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=(rule,), excerpts=False))
    body = b"From: a@b.example\r\nContent-Type: text\r\nContent-Type: text/plain\r\n\r\nx\r\n"
    verdict = to_be_kept(screen(ENVELOPE, body, ruleset), ruleset).verdict
    assert verdict.obstacles
    assert verdict.detail == "rule don't"


# -- the same again

MESSAGES = [
    CLEAN,
    CLEAN.replace(b"gamma", b"omega"),
    b"From: a@b.example\r\nContent-Type: message/partial; id=a; number=1; total=2\r\n\r\nalpha\r\n",
    (
        b"From: x@sender.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nalpha\r\n--b\r\n"
        b"Content-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n--b--\r\n"
    ),
    b"\0\xff nothing that parses \r\n alpha",
]


async def test_the_same_message_and_rules_give_the_same_verdict_twice_in_any_order_and_in_the_sandbox() -> None:
    rules = [a_rule(one, rule_id=f"r{n}", mode=RuleMode.MONITOR if n % 2 else RuleMode.ON) for n, one in enumerate(SAMPLES[1:])]
    rules.append(a_rule(AllOf(of=(Not(of=SAMPLES[1]), AnyOf(of=SAMPLES))), rule_id="last"))
    policy = ScreeningPolicy(revision=3, rules=tuple(rules))
    first = [screen(ENVELOPE, body, compile_policy(policy)) for body in MESSAGES]
    ruleset = compile_policy(policy)
    backwards = [screen(ENVELOPE, body, ruleset) for body in reversed(MESSAGES)][::-1]
    assert first == backwards == [screen(ENVELOPE, body, ruleset) for body in MESSAGES]
    sandbox, stop = Sandbox(default_command(1024)), asyncio.Event()
    running = asyncio.create_task(sandbox.run(stop))
    try:
        inside: list[Any] = [await sandbox.inspect(ENVELOPE, body, ruleset, 10, 10) for body in MESSAGES]
    finally:
        stop.set()
        await running
    assert inside == first


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_several_rules_that_matched_are_all_told(name: str) -> None:
    found = verdict_of(
        CLEAN, a_rule(KeywordCondition(phrases=(name,))), a_rule(KeywordCondition(phrases=("gamma",)), rule_id="other")
    )
    assert [finding.rule_id for finding in found.findings] == ["r", "other"]


async def _told(mailbag: Any, messages: int) -> dict[str, TraceEvent]:
    told: dict[str, TraceEvent] = {}
    async with asyncio.timeout(10):
        while len(told) < messages:
            state = await mailbag.reader.stream_state(EVENTS)
            for sequence in range(1, int(state["last_seq"]) + 1):
                answer = await mailbag.reader.api(f"STREAM.MSG.GET.{EVENTS}", {"seq": sequence})
                data = base64.b64decode(answer["message"]["data"])
                told |= {event.id: event for event in msgspec.json.decode(data, type=EventBatch).events}
            await asyncio.sleep(0.05)
    return told


async def test_the_trace_has_a_verdict_of_what_matched_and_nothing_more_of_other_mail(mailbag: Any, screener: Any) -> None:
    watching = a_rule(KeywordCondition(phrases=("beta",)), mode=RuleMode.MONITOR)
    holding = a_rule(KeywordCondition(phrases=("omega",)), rule_id="s")
    await mailbag.put_policy(watching, holding, excerpts=False)
    ordinary = await mailbag.send(b"From: x@sender.example\r\n\r\nnothing\r\n", "a@relay.example")
    matched = await mailbag.send(CLEAN, "a@relay.example")
    held = await mailbag.send(CLEAN.replace(b"gamma", b"omega"), "a@relay.example")
    forged = await mailbag.send(b"X-Postern-Unscanned: clamd\r\nFrom: x@sender.example\r\n\r\nnothing\r\n", "a@relay.example")
    await mailbag.screened()
    told = await _told(mailbag, 4)
    assert told[ordinary.id].verdict is None
    assert set(told[ordinary.id].fields) == {"decision", "revision", "ms"}
    without = told[forged.id].verdict
    assert without is not None
    assert [made.kind for made in without.changes] == ["remove-header"]
    ((_, went_on),) = await mailbag.jobs(forged.id)
    assert went_on == b"From: x@sender.example\r\n\r\nnothing\r\n"
    verdict = told[matched.id].verdict
    assert verdict is not None
    assert [(f.rule_id, f.part, f.length, f.excerpt, f.monitored) for f in verdict.findings] == [("r", "1", 4, "", True)]
    assert len(verdict.criteria) == 1
    ((entry, _),) = await mailbag.held(held.id)
    assert {finding.excerpt for finding in entry.verdict.findings} == {""}
    assert entry.verdict == told[held.id].verdict


async def test_the_trace_has_the_language_of_mail_in_which_nothing_matched(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(a_rule(LanguageCondition(languages=("de",))))
    sent = await mailbag.send(CLEAN, "a@relay.example")
    await mailbag.screened()
    verdict = (await _told(mailbag, 1))[sent.id].verdict
    assert verdict is not None
    assert (verdict.findings, verdict.language) == ((), TextLanguage(letters=9))
