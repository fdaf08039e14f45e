"""Further readings of a text: without what is hidden, with look-alike letters put back. Where a match in one of them lies; time; any input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_screener.checks.hit import Place
from postern_screener.hidden_text import cuts
from postern_screener.lookalikes import may_have_lookalikes, undisguised
from postern_screener.text import html_readings, readings, searchable


def located(raw: bytes, word: str, *, is_html: bool = False) -> Place:
    """Where the word lies in the first reading that has it."""
    for reading in searchable(raw, "utf-8", is_html=is_html):
        if (start := reading.data.find(word.encode())) >= 0:
            return reading.locate(start, start + len(word.encode()))
    raise AssertionError(f"no reading has {word}")


@pytest.mark.parametrize("before", ["", "Grüße: ", "Привет, мир. ", "fi\ufb01 \u0130 ß ", "a\u0338b\u0338 "])
@pytest.mark.parametrize(
    "written", ["lоttеrу", "LОTTЕRУ", "l\u0338o\u0338t\u0338t\u0338e\u0338r\u0338y", "lo\u200bttеry", "ＬОttery"]
)
def test_a_match_of_look_alikes_points_to_what_was_written(before: str, written: str) -> None:
    assert located(f"{before}{written} x".encode(), "lottery") == Place(len(before.encode()), written, len(written.encode()))


@pytest.mark.parametrize(
    ("source", "excerpt"),
    [
        ('<p>é</p><i style="display:none">abc</i>you lot<i hidden>xyz</i>tery', "lottery"),
        ("<i hidden>abc</i><b>x</b> lot<i hidden>xyz</i>t<i hidden>xyz</i>ery", "lottery"),
        ("<div hidden>lot<i hidden>xyz</i>tery</div>", "lottery"),
        ("<div hidden>é</div>lоttеrу", "lоttеrу"),
    ],
)
def test_a_match_in_visible_text_points_into_the_source(source: str, excerpt: str) -> None:
    raw = source.encode()
    place = located(raw, "lottery", is_html=True)
    assert place[:2] == (raw.index(b"lot" if b"lot" in raw else "lо".encode()), excerpt)
    assert raw[place.offset + place.length - 1 :].startswith((b"y", "у".encode()[1:]))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("lоttеrу", ["lottery"]),
        ("СОРУ РАУ", ["COPY PAY"]),
        ("сор из избы", []),
        ("из избы: сору nоw", ["из избы: copy now"]),
        ("из избы: сору now", ["из избы: copy now"]),
        ("нет Windows", []),
        ("лoтepeя", ["лотерея"]),
        ("Windows и Linux", []),
    ],
)
def test_real_words_of_another_script_stay_what_they_are(text: str, read: list[str]) -> None:
    if read:
        assert read[0] in undisguised(text)
    else:
        assert all(sum(a != b for a, b in zip(text, other, strict=True)) <= 3 for other in undisguised(text))


@given(st.text(alphabet=st.sampled_from("abeоасерухлиΟαωսհ \t\n\u0338é\u202e\u202c"), max_size=80))
def test_any_mixture_of_scripts_is_read(text: str) -> None:
    for reading in readings(text, "utf-8"):
        for start in range(0, len(reading.data), 3):
            place = reading.locate(start, start + 1)
            assert 0 <= place.offset <= len(text.encode())
    for other in undisguised(text):
        assert len(other) == len(text)


def test_texts_of_western_languages_have_one_reading() -> None:
    for text in ("plain", "„Grüße“ – ça va? 100 € …", "ñandú, Øre"):
        assert len(readings(text, "utf-8")) == 1
        assert not may_have_lookalikes(text.encode())


@given(
    st.lists(
        st.sampled_from([*"<>/=\"' abps-!;:{}.#", "hidden", "style", "display:none", "<p", "</p>", "<style>"]), max_size=60
    ).map("".join)
)
def test_any_markup_has_its_readings(source: str) -> None:
    for cut in cuts(source, source.encode()):
        assert len(cut.rest) < len(source)
        for index in range(len(cut.rest)):
            assert source[cut.index_before(index)] == cut.rest[index]
    html_readings(source, "utf-8", source.encode())


@pytest.mark.parametrize(
    "junk",
    [
        "<b style=display:none>",
        "<p hidden>",
        "<i hidden>x</i>",
        "<style>.a{display:none}",
        "<a class='",
        "{",
        "}",
        "<style",
        "<a title='<' hidden",
        "color:",
    ],
)
@pytest.mark.parametrize("before", ["", "<style>.a,b{display:none}", "<a "])
def test_hiding_without_end_takes_linear_time(junk: str, before: str) -> None:
    source = before + junk * (300_000 // len(junk))
    cuts(source, source.encode())  # the test's time-out is the assertion


@pytest.mark.parametrize("junk", ["аb", "а ", "аb ", "aа", "л", "ла", "a\u0338", "\u202ea", "\u0300", "а\t\t"])
def test_look_alikes_without_end_take_linear_time(junk: str) -> None:
    readings(junk * 100_000 + "л", "utf-8")  # the test's time-out is the assertion
