"""The way back from a decoded text to its octets, in charsets that shift and in texts that are damaged."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_screener.charsets import text_readings
from postern_screener.offsets import span_of

ESCAPES = re.compile(rb"\x1b[\x20-\x2f]+[\x30-\x7e]|[\x0e\x0f]|~[{}\n]")
CODECS = [
    "utf-8",
    "utf-16-le",
    "utf-16",
    "utf-32",
    "iso2022_jp",
    "iso2022_jp_2",
    "iso2022_kr",
    "hz",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5hkscs",
    "cp949",
    "cp1252",
]
TEXTS = st.text(st.sampled_from("a é日本ｌ漢~+-\r\n\u200b한"), max_size=20)
DAMAGE = st.lists(
    st.sampled_from([b"\xff", b"\x1b", b"\x1b$B", b"\x1b(B", b"\x0e", b"\xe3\x81", b"\x82", b"~", b"a", b"\x80"]), max_size=6
)


@given(TEXTS, st.sampled_from(["needle", "ｎｅｅｄｌｅ"]), TEXTS, st.sampled_from([*CODECS, "utf-7"]))
def test_a_span_holds_its_characters_and_nothing_else(before: str, needle: str, after: str, codec: str) -> None:
    content = f"{before}|{needle}|{after}".encode(codec, "ignore")
    text = content.decode(codec, "replace")
    if (at := text.find("|") + 1) and (found := text[at : at + 6]) in (needle, "needle"):
        begin, end = span_of(content, codec, at, at + 6)
        if codec == "utf-7":
            assert (content[begin:end] == b"needle") if found == "needle" else end - begin == 16
            return
        assert ESCAPES.sub(b"", content[begin:end]) == ESCAPES.sub(b"", _bare(found, codec))
        assert ESCAPES.match(content[begin:end]) is None
        assert not content[begin:end].endswith((b"\x1b(B", b"\x0f", b"~}"))


def _bare(text: str, codec: str) -> bytes:
    """Without the marks in front."""
    if codec in ("utf-16", "utf-32"):
        return text.encode(f"{codec}-le")
    return text.encode(codec).removeprefix(b"\x1b$)C")


@given(DAMAGE, DAMAGE, st.sampled_from(CODECS))
def test_damage_in_front_moves_no_place(before: list[bytes], after: list[bytes], codec: str) -> None:
    needle = "needle".encode(codec if codec not in ("utf-16", "utf-32") else f"{codec}-le").removeprefix(b"\x1b$)C")
    content = b"".join(before) + needle + b"".join(after)
    text = content.decode(codec, "replace")
    if (at := text.find("needle")) >= 0:
        begin, end = span_of(content, codec, at, at + 6)
        assert content[begin:end] == needle


@given(st.binary(max_size=60), st.sampled_from([*CODECS, "utf-7"]))
def test_any_octets_have_their_places_in_order(content: bytes, codec: str) -> None:
    text = content.decode(codec, "replace")
    spans = [span_of(content, codec, at, at + 1) for at in range(len(text))]
    assert all(0 <= begin <= end <= len(content) for begin, end in spans)
    assert [begin for begin, _ in spans] == sorted(begin for begin, _ in spans)


@pytest.mark.parametrize(
    ("content", "text", "covered"),
    [
        (b"a +AGwAbwB0- b", "lot", b"AGwAbwB0"),
        (b"a +AGwAbwB0- b", "ot", b"wAbwB0"),
        (b"+-+- lot", "lot", b"lot"),
        (b"+AGw.ot", "l.ot", b"AGw.ot"),
        (b"\xff\xff+AGw-ot", "lot", b"AGw-ot"),
        (b"+2D3YAA-lot", "lot", b"lot"),
    ],
)
def test_a_place_in_utf_7_is_that_of_the_octets_that_hold_its_bits(content: bytes, text: str, covered: bytes) -> None:
    decoded = text_readings(content, "utf-7")[0][0]
    at = decoded.index(text)
    begin, end = span_of(content, "utf-7", at, at + len(text))
    assert content[begin:end] == covered


def test_a_place_behind_megabytes_of_shifts_is_found_in_linear_time() -> None:
    run = b"+" + base64.b64encode("ab".encode("utf-16-be") * 300_000).rstrip(b"=") + b"-"
    content = run + b"needle"  # the test's time-out is the assertion: to decode it octet by octet would take hours
    assert span_of(content, "utf-7", 600_000, 600_006) == (len(run), len(content))


def test_an_escape_that_never_ends_has_places_all_the_same() -> None:
    content = b"\x1b$(" + b"\x1b" * 20 + b"(" * 20 + b" needle"  # Python's decoder gives up when it is given this piece by piece
    for codec in ("iso2022_jp", "iso2022_jp_2", "iso2022_kr"):
        text = content.decode(codec, "replace")
        at = text.index("needle")
        begin, end = span_of(content, codec, at, at + 6)
        assert 0 < begin <= end <= len(content)
