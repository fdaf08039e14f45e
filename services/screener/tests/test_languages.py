"""The condition on the language of a message: what is told of real texts, of mixed, short and odd ones, and what it costs who does not ask."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import Envelope
from postern_core.policy import AllOf, AnyOf, Condition, KeywordCondition, LanguageCondition, Not, Rule, ScreeningPolicy
from postern_core.policy.languages import LANGUAGES, LEAST_LETTERS
from postern_core.policy.why_not import Outcome, explain
from postern_core.verdict import Action, TextLanguage, Verdict
from postern_screener.checks.language import MAX_CHARACTERS, tell
from postern_screener.ruleset import compile_policy
from postern_screener.screening import screen

TEXTS = {
    "en": "Dear colleagues, the meeting on Thursday has been moved to the large room on the second floor. Please bring your notes with you.",
    "de": "Liebe Kolleginnen und Kollegen, die Besprechung am Donnerstag findet im großen Saal im zweiten Stock statt. Bitte bringt eure Notizen mit.",
    "fr": "Chers collègues, la réunion de jeudi aura lieu dans la grande salle du deuxième étage. Merci d'apporter vos notes avec vous.",
    "es": "Estimados compañeros, la reunión del jueves se celebrará en la sala grande del segundo piso. Por favor, traigan sus apuntes.",
    "it": "Cari colleghi, la riunione di giovedì si terrà nella sala grande al secondo piano. Per favore portate con voi i vostri appunti.",
    "pl": "Drodzy koledzy, czwartkowe spotkanie zostało przeniesione do dużej sali na drugim piętrze. Proszę zabrać ze sobą notatki.",
    "tr": "Değerli arkadaşlar, perşembe günkü toplantı ikinci kattaki büyük salona alındı. Lütfen notlarınızı yanınızda getirmeyi unutmayın.",
    "ru": "Уважаемые коллеги, совещание в четверг перенесено в большой зал на втором этаже. Пожалуйста, возьмите с собой свои записи.",
    "uk": "Шановні колеги, нараду в четвер перенесено до великої зали на другому поверсі. Будь ласка, візьміть із собою свої нотатки.",
    "el": "Αγαπητοί συνάδελφοι, η συνάντηση της Πέμπτης μεταφέρθηκε στη μεγάλη αίθουσα του δεύτερου ορόφου. Φέρτε μαζί τις σημειώσεις σας.",
    "he": "עמיתים יקרים, הפגישה ביום חמישי הועברה לאולם הגדול בקומה השנייה. אנא הביאו איתכם את הרשימות שלכם ואל תאחרו להגיע אליה.",
    "ar": "زملائي الأعزاء، تم نقل اجتماع يوم الخميس إلى القاعة الكبيرة في الطابق الثاني. يرجى إحضار ملاحظاتكم معكم وعدم التأخر عن الموعد.",
    "zh": "各位同事，星期四的会议改到二楼的大会议室举行。请大家带上自己的笔记，准时参加，谢谢大家的配合。",
    "ja": "同僚の皆様、木曜日の会議は二階の大きな会議室に変更になりました。ノートを忘れずにお持ちください。よろしくお願いします。",
    "ko": "동료 여러분, 목요일 회의는 이층에 있는 큰 회의실로 옮겨졌습니다. 메모를 꼭 가지고 오시기 바랍니다. 감사합니다.",
    "hr": "Dragi kolege, sastanak u četvrtak premješten je u veliku dvoranu na drugom katu. Molimo vas da sa sobom ponesete svoje bilješke.",
}
Inspect = Callable[..., Verdict]


@pytest.fixture
def inspect(an_envelope: Callable[..., Envelope]) -> Inspect:
    def run(body: bytes, condition: Condition) -> Verdict:
        rule = Rule(id="r", name="r", condition=condition, action=Action.HOLD)
        return screen(an_envelope(), body, compile_policy(ScreeningPolicy(revision=1, rules=(rule,)))).verdict

    return run


def mail(text: str, *, subtype: str = "plain", cte: str = "base64", charset: str = "utf-8") -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"] = "x@sender.example"
    message.set_content(text, subtype=subtype, charset=charset, cte=cte)
    return message.as_bytes()


def asks(*languages: str) -> LanguageCondition:
    return LanguageCondition(languages=languages)


def is_held(verdict: Verdict) -> bool:
    return verdict.deciding is not None


@pytest.mark.parametrize("code", TEXTS)
def test_a_short_mail_in_each_of_some_languages_is_told(inspect: Inspect, code: str) -> None:
    verdict = inspect(mail(TEXTS[code]), asks(code))
    assert verdict.language is not None
    assert (verdict.language.code, verdict.language.percent > 90) == (code, True)
    assert is_held(verdict)
    assert not is_held(inspect(mail(TEXTS[code]), AnyOf(of=tuple(asks(other) for other in TEXTS if other != code))))
    assert not is_held(inspect(mail(TEXTS[code]), Not(of=asks("la", code))))


def test_a_match_says_language_share_confidence_part_and_where_it_begins(inspect: Inspect) -> None:
    message = EmailMessage(policy=SMTP)
    message["From"] = "x@sender.example"
    message.set_content("42 17 https://example.com/seventeen")
    message.add_alternative(f"<p>{TEXTS['de']}</p>", subtype="html")
    [finding] = inspect(message.as_bytes(), asks("de")).findings
    assert finding.part == "2"
    assert finding.excerpt.startswith("de 100 % (1.0): Liebe Kolleginnen und Kollegen")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (mail(TEXTS["de"], cte="quoted-printable", charset="iso-8859-1"), "de"),
        (mail(TEXTS["ru"], charset="koi8-r"), "ru"),
        (mail(TEXTS["ja"], charset="iso-2022-jp", cte="7bit"), "ja"),
        # says nothing, or something wrong, of its charset
        (b"From: x@sender.example\r\n\r\n" + TEXTS["ru"].encode(), "ru"),
        (b"From: x@sender.example\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n" + TEXTS["ru"].encode(), "ru"),
        (mail(f"<html><style>.important{{color:red}}</style><p>{TEXTS['fr']}</p>", subtype="html"), "fr"),
        (mail(TEXTS["de"].replace("e", "e\u200b\u00ad")), "de"),
        (mail(TEXTS["de"].upper()), "de"),
        (mail("".join(f"> {word}\r\n" for word in TEXTS["es"].split(" "))), "es"),
    ],
)
def test_it_is_the_text_as_a_reader_sees_it(inspect: Inspect, body: bytes, code: str) -> None:
    assert is_held(inspect(body, asks(code)))


def test_hidden_text_does_not_count(inspect: Inspect) -> None:
    hidden = f"<div style='display:none'>{TEXTS['en'] * 5}</div>"
    assert is_held(inspect(mail(f"<body>{hidden}<p>{TEXTS['de']}</p></body>", subtype="html"), asks("de")))


def test_attachments_do_not_count_and_forwarded_messages_do(inspect: Inspect) -> None:
    message = EmailMessage(policy=SMTP)
    message["From"] = "x@sender.example"
    message.set_content("Hi")
    message.add_attachment(TEXTS["de"], filename="a.txt")
    assert not is_held(inspect(message.as_bytes(), asks("de")))
    inner = EmailMessage(policy=SMTP)
    inner["Subject"] = "inner"
    inner.set_content(TEXTS["de"])
    message.add_attachment(inner)
    assert is_held(inspect(message.as_bytes(), asks("de")))


def test_of_mixed_text_the_greater_part_decides(inspect: Inspect) -> None:
    mostly = mail(f"{TEXTS['ru'] * 4}\r\n\r\n{TEXTS['en']}\r\n")
    assert is_held(inspect(mostly, asks("ru")))
    assert not is_held(inspect(mostly, asks("en")))
    half = inspect(mail("\r\n".join(TEXTS[code] for code in ("ru", "en", "de", "zh"))), asks("ru", "en", "de", "zh"))
    assert (is_held(half), half.language and half.language.code) == (False, "")


def test_the_beginning_of_a_long_text_decides(inspect: Inspect) -> None:
    long = mail(f"{TEXTS['de']}\r\n" * (MAX_CHARACTERS // len(TEXTS["de"]) + 1) + f"{TEXTS['en']}\r\n" * 500)
    verdict = inspect(long, asks("de"))
    assert is_held(verdict)
    assert verdict.language is not None
    assert verdict.language.letters <= MAX_CHARACTERS


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("Hello, see you there", f"there is too little text to tell, 16 letters of at least {LEAST_LETTERS}"),
        ("", f"there is too little text to tell, 0 letters of at least {LEAST_LETTERS}"),
        (TEXTS["de"], "it is mostly German (de), 100 %"),
        ("\r\n".join(TEXTS[code] for code in ("ru", "en", "de", "zh")), "no language is certain"),
        ("QmFzZTY0 " * 3 + "bGFuZ3VhZ2U" * 100, "there is too little text to tell, 21 letters of at least 80"),
    ],
)
def test_what_kept_a_rule_from_matching_is_told_in_words(inspect: Inspect, text: str, because: str) -> None:
    rule = Rule(id="r", name="r", condition=asks("en", "fr"), action=Action.HOLD)
    verdict = inspect(mail(text), rule.condition)
    [told] = explain([rule], verdict.criteria, verdict.unasked, verdict.language)
    assert told.outcome is Outcome.FAILED
    assert told.because == f"it is not so that the text is in one of English (en), French (fr): {because}"


def test_nobody_looks_before_the_cheaper_conditions_hold(inspect: Inspect) -> None:
    condition = AllOf(of=(KeywordCondition(phrases=("never",)), asks("de")))
    assert inspect(mail(TEXTS["de"]), condition).language is None
    assert inspect(mail(TEXTS["de"] + " never"), condition).language == inspect(mail(TEXTS["de"] + " never"), asks("de")).language


@given(st.lists(st.text() | st.sampled_from(sorted(TEXTS.values())), max_size=4))
def test_any_text_has_one_answer(texts: list[str]) -> None:
    given_texts = [(f"{n}", text) for n, text in enumerate(texts)]
    told = tell(given_texts)
    assert told.language == tell(given_texts).language
    assert told.language.code in {"", *LANGUAGES}
    assert 0 <= told.language.percent <= 100
    assert 0 <= told.language.confidence <= 1
    assert told.language.code or told.language == TextLanguage(letters=told.language.letters)


@pytest.mark.parametrize(
    "text", ["\ud800" * 100, "a\ud800\udfff" * 90, "\x00\x01\x7f\ufffe\U0010ffff" * 60, "\U0001d400" * 300, "a\u0301" * 300]
)
def test_the_identifier_is_never_given_anything_but_utf_8(text: str) -> None:
    """On other bytes it reads beyond its tables and ends the process."""
    assert tell([("1", text)]).language.percent <= 100


def test_a_language_that_is_not_known_does_not_compile() -> None:
    rule = Rule(id="r", name="r", condition=asks("xx"), action=Action.HOLD)
    with pytest.raises(ValueError, match="'xx' is no language"):
        compile_policy(ScreeningPolicy(revision=1, rules=(rule,)))


LOADS = """
import sys
import postern_screener.app
from postern_core.policy import CharsetCondition, LanguageCondition, Rule, ScreeningPolicy
from postern_core.verdict import Action
from postern_screener.ruleset import compile_policy
for condition in (CharsetCondition(charsets=("utf-8",)), LanguageCondition(languages=("de",))):
    compile_policy(ScreeningPolicy(revision=1, rules=(Rule(id="r", name="r", condition=condition, action=Action.HOLD),)))
    print([name for name in sys.modules if "cld3" in name] != [])
"""


def test_the_identifier_is_loaded_by_a_policy_that_asks_for_a_language_and_never_before() -> None:
    told = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == ["False", "True"]
