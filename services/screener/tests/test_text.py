"""Texts as keywords are compared in, and the way back to the bytes of the part."""

from __future__ import annotations

import base64
import encodings
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.unicode_forms import caseless
from postern_screener.charsets import decode_base64, is_plain_ascii, text_readings, transfer_encoding
from postern_screener.encoded_words import decode_leniently
from postern_screener.html_text import source_index, visible_text
from postern_screener.text import PlainText, UnicodeText, fold, html_readings


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a<b>b</b>c", "abc"),
        ("free<br>money", "free money"),
        ("free</td><td>money", "free  money"),
        ("lot<!-- x > y -->tery", "lottery"),
        ("lot<!-->tery", "lottery"),
        ("lot<style>p{}</style>tery", "lottery"),
        ('lot<span title="a>b">tery', "lottery"),
        ("lot<span title='<'>tery", "lottery"),
        ("l&#111;tter&#x79;", "lottery"),
        ("a&nbsp;b", "a\xa0b"),
        ("&amp;nbsp;", "&nbsp;"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("lot<P CLASS=x>tery", "lot tery"),
        ("lot<wbr>tery", "lottery"),
        ('lot<script>x</script y=">">tery', "lottery"),
        ("cut <a href=", "cut "),
    ],
)
def test_visible_text_is_what_a_reader_sees(source: str, text: str) -> None:
    assert visible_text(source) == text


@pytest.mark.parametrize("junk", ["<a", '<a "', '<a ="', "<!--", "<script", "<style ", "&#", "<br", "<a =' "])
def test_unclosed_markup_takes_linear_time(junk: str) -> None:
    visible_text(junk * 200_000)  # the test's time-out is the assertion: quadratic would take hours


@given(st.text(alphabet="<>/=\"' abp!-&;#x0", max_size=200))
def test_any_markup_is_read(source: str) -> None:
    text = visible_text(source)
    for index in range(len(text)):
        assert 0 <= source_index(source, index) <= len(source)


def test_an_index_in_visible_text_leads_back_to_the_source() -> None:
    source = "<html><p>one <b>two</b> &amp; three</p>"
    text = visible_text(source)
    for word in ("one", "two", "three"):
        assert source.startswith(word, source_index(source, text.index(word)))


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("LOTTERY", "lottery"),
        ("ＬＯＴＴＥＲＹ", "lottery"),
        ("lot\u00adtery", "lottery"),
        ("lot\u200btery", "lottery"),
        ("lot\u2062tery", "lottery"),
        ("lot\x00te\x08r\x7fy", "lottery"),
        ("lö\x01t", "löt"),
        ("lö\u0081t", "löt"),
        ("a\tb\r\nc", "a\tb\r\nc"),
        ("STRASSE Straße", "strasse strasse"),
        ("cafe\u0301", "café"),
        ("free\xa0money", "free money"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
    ],
)
def test_folding(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_combining_marks_without_end_take_linear_time() -> None:
    fold("\u0315\u0300" * 500_000)  # the test's time-out is the assertion: sorting them all would take hours


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=600), st.integers(0, 3))
def test_a_long_text_folds_as_its_beginning_does(text: str, times: int) -> None:
    lines = (text + "\n") * (1 + times)
    assert caseless(lines).split("\n")[0] == caseless(text).split("\n")[0]


def test_pieces_of_a_long_text_lose_no_composition() -> None:
    for letters in ("e\u0301", "か\u3099", "\u1100\u1161", "и\u0306", "\u0e33"):
        text = letters * 2000
        assert caseless(text) == unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@given(st.text())
def test_folding_twice_changes_nothing_more_for_compatible_text(text: str) -> None:
    once = fold(text)
    if once.isascii():
        assert fold(once) == once


def test_a_match_is_located_in_the_bytes_of_the_part() -> None:
    plain = PlainText(b"Dear LOTTERY winner")
    assert plain.locate(5, 12)[:2] == (5, "LOTTERY")
    controls = PlainText(b"a\x00 LOT\x01TERY b")
    start = controls.data.index(b"lottery")
    assert controls.locate(start, start + 7)[:2] == (3, "LOT\x01TERY")
    text = "\u00adGrüße: ＬＯＴ\u00adTERY!"
    for codec in ("utf-8", "utf-16-le"):
        where = UnicodeText(text, codec)
        start = where.data.index(b"lottery")
        assert where.locate(start, start + 7)[:2] == (len(text[: text.index("Ｌ")].encode(codec)), "ＬＯＴ\u00adTERY")
    source = "<p>é <b>LOT</b>TERY</p>"
    html = html_readings(source, "utf-8", source.encode())[0]
    start = html.data.index(b"lottery")
    assert html.locate(start, start + 7)[:2] == (len("<p>é <b>".encode()), "LOTTERY")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60), st.text(max_size=60))
def test_a_needle_is_located_between_any_two_texts(before: str, after: str) -> None:
    where = UnicodeText(before + " needle " + after, "utf-8")
    start = where.data.rindex(b" needle ") if " needle " not in fold(after) else where.data.index(b" needle ")
    offset, excerpt, *_ = where.locate(start, start + 8)
    assert 0 <= offset <= len((before + " needle " + after).encode("utf-8", "replace"))
    if before.isascii():
        assert "needle" in excerpt


@pytest.mark.parametrize(
    ("content", "charset", "expected"),
    [
        ("é".encode("latin-1"), "iso-8859-1", "é"),
        (b"\x93x\x94", "iso-8859-1", "“x”"),
        ("é".encode(), "", "é"),
        ("é".encode(), "no-such-charset", "é"),
        ("é".encode(), "us-ascii", "é"),
        ("lottery".encode("utf-16"), "", "lottery"),
        ("lottery".encode("utf-16-le"), "us-ascii", "lottery"),
        (b"+AGw-ottery", "utf-7", "lottery"),
        ("日本".encode("iso2022_jp"), "us-ascii", "日本"),
        ("日本".encode("shift_jis"), "shift_jis", "日本"),
        ("lottery".encode("cp500"), "cp500", "lottery"),
        (b"lot+AHQ-ery", "unicode-1-1-utf-7", "lottery"),
        (b"lot+AHQ-ery", "x-unicode-2-0-utf-7", "lottery"),
        (b"lot+AHQ-ery", "utf-7 (c)", "lottery"),
        (b"x", "punycode", "x"),
        (b"x", "zip", "x"),
    ],
)
def test_text_is_read_in_the_declared_charset_and_in_the_one_it_seems_to_be(content: bytes, charset: str, expected: str) -> None:
    assert expected in [text.removeprefix("\ufeff") for text, _ in text_readings(content, charset)]


@pytest.mark.parametrize(
    ("charset", "keeps"),
    [("", True), ("utf-8", True), ("windows-1252", True), ("x-unheard-of", True), ("gb2312", True)]
    + [
        (name, False)
        for name in ("utf-7", "csUnicode11UTF7", "u7", "UTF-16LE", "utf-32", "hz", "iso-2022-jp", "cp037", "ebcdic-cp-us")
    ],
)
def test_ascii_bytes_are_taken_as_they_are_only_where_they_mean_themselves(charset: str, keeps: bool) -> None:
    assert is_plain_ascii(b"lottery", charset) == keeps


def test_an_unheard_of_charset_leaves_nothing_behind() -> None:
    before = len(encodings._cache)
    for n in range(1000):
        text_readings(b"\x80", f"x-made-up-{n}")
    assert len(encodings._cache) <= before + 5


@given(st.binary(max_size=200), st.sampled_from(["", "utf-8", "utf-16", "utf-7", "hz", "iso-2022-jp", "big5", "x"]))
def test_any_bytes_are_read_in_any_charset(content: bytes, charset: str) -> None:
    assert text_readings(content, charset)


@pytest.mark.parametrize(
    ("raw", "decoded"),
    [
        (b"aGVsbG8=", b"hello"),
        (b"aGVs!!bG8", b"hello"),
        (b"aGVs\r\n bG8=\r\n", b"hello"),
        (b"aGVsbG8=d29ybGQ=", b"helloworld"),
        (b"aGVsbG8=A", b"hello"),
        (b"", b""),
    ],
)
def test_base64_is_decoded_as_far_as_it_goes(raw: bytes, decoded: bytes) -> None:
    assert decode_base64(raw) == decoded


@given(st.binary())
def test_any_bytes_decode_as_base64(raw: bytes) -> None:
    decode_base64(raw)


@pytest.mark.parametrize("value", ["base64", "BASE64 ", '"base64"', "base64 (c)", "(c) base64", "base64;"])
def test_transfer_encodings_are_read_through_blanks_quotes_and_comments(value: str) -> None:
    assert transfer_encoding(value) == "base64"


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("lot=?utf-8?q?tery?=", "lottery"),
        ("x=?utf-8?Q?l=6fttery?=y", "xlotteryy"),
        ("=?utf-8?q?lot?= =?utf-8?q?tery?=", "lottery"),
        ("=?utf-8?b?bG90?==?utf-8?b?dGVyeQ?=", "lottery"),
        ("lot?==?utf-8?q?tery", "lottery"),
        ("=?x-unheard-of?q?l=6Fttery?=", "lottery"),
        ("=?utf-8*en?b?bG90*dGVyeQ?=", "lottery"),
        ("no word", "no word"),
        ("a =? b ?= c", "a =? b ?= c"),
    ],
)
def test_encoded_words_are_read_where_the_parser_reads_none(text: str, decoded: str) -> None:
    assert decode_leniently(text) == decoded


@given(st.text(alphabet="=?qQbB ux-8a*\n", max_size=100))
def test_any_encoded_words_are_read(text: str) -> None:
    decode_leniently(text)


def test_base64_that_is_padded_again_and_again_is_decoded_all_the_same() -> None:
    once = base64.b64encode(b"lottery!") + b"\r\n"
    assert decode_base64(once * 90_000) == b"lottery!" * 90_000
    many = decode_base64(once * 300_000)
    assert many.startswith(b"lottery!" * 200_000)
    assert len(many) >= 300_000 * 8
