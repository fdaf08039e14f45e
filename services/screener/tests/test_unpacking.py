"""Files inside texts, winmail.dat and attached messages: what becomes of them, damage, any bytes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.packed import attribute, compressed, mapi, uuencoded, winmail, yencoded
from postern_core.policy import AttachmentCondition, AttachmentMatch, KeywordCondition, Rule
from postern_core.verdict import Action, Decision, HoldReason
from postern_screener.formats.blocks import MAX_BLOCKS, may_have_blocks, unpack_blocks
from postern_screener.formats.rtf import decompress, rtf_text
from postern_screener.formats.tnef import unpack_tnef
from postern_screener.message_tree import Message
from postern_screener.mime import parse_message
from postern_screener.screening import Screened
from postern_screener.unpacking import unpack

Screens = Callable[..., Screened]
HEAD = b"From: a@sender.example\r\nMIME-Version: 1.0\r\n"


def opened(raw: bytes) -> Message:
    return unpack(parse_message(raw), len(raw), in_texts=True)


def with_tnef(content: bytes) -> bytes:
    fields = b"Content-Type: application/ms-tnef; name=winmail.dat\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x\r\n"
        + fields
        + base64.encodebytes(content)
        + b"--x--\r\n"
    )


def shape(message: Message) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(part.path, part.media_type, part.names) for part in message.parts]


@given(st.binary(max_size=2000))
def test_what_is_packed_comes_out_again(content: bytes) -> None:
    for packed in (uuencoded(content, "a.bin"), yencoded(content, "a.bin")):
        if content or packed.startswith(b"=y"):
            found = unpack_blocks(b"hello\r\n" + packed + b"bye\r\n")
            assert [(member.names, member.content) for member in found.members] == [(("a.bin",), content)]
            assert found.damage == []
    found = unpack_tnef(winmail(files={"a.bin": content}))
    assert [member.content for member in found.members] == [content]
    assert found.members[0].names == ("SHORT~1.DAT", "a.bin")
    assert found.damage == []
    assert decompress(compressed(content)) == (content, True)


def test_compressed_text_repeats_what_came_before() -> None:
    # MS-OXRTFCP section 3.1.1: the example of the specification
    example = bytes.fromhex(
        "2d0000002b0000004c5a4675f1c5c7a703000a00726370673132354232"  # sizes, kind, checksum, the first tokens
        "0af32068656c090020627705b06c647d0a800fa0"
    )
    assert decompress(example)[0] == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (rb"{\rtf1\ansi free\par money}", "free\nmoney"),
        (rb"{\rtf1 lot{\b te}ry}", "lottery"),
        (rb"{\rtf1 l\'6fttery}", "lottery"),
        (rb"{\rtf1\uc1 l\u1086?ttery \u-10179?\u-9025?}", "lоttery 👿".replace("👿", "\U0001f4bf")),
        (rb"{\rtf1\ansicpg1251 \'eb}", "л"),
        (rb"{\rtf1 a\bin3 {}}b}", "ab"),
        (b"{\\rtf1 free\\\nmoney}", "free\nmoney"),
        (rb"{\rtf1\fromhtml1 {\*\htmltag64 <p>}a\htmlrtf x\htmlrtf0 }", "<p>ax"),
    ],
)
def test_text_of_rtf(source: bytes, text: str) -> None:
    assert rtf_text(source).strip() == text


def test_members_are_parts_with_numbers_of_their_own() -> None:
    text = HEAD + b"\r\nhello\r\n" + uuencoded(b"MZ", "a.exe") + uuencoded(b"hello", "b.txt") + yencoded(b"x", "c.html")
    assert shape(opened(text)) == [
        ("1", "text/plain", ()),
        ("1.uu1", "application/octet-stream", ("a.exe",)),
        ("1.uu2", "text/plain", ("b.txt",)),
        ("1.yenc1", "text/html", ("c.html",)),
    ]
    inner = winmail(subject=b"s\0", body=b"b\0", files={"a.exe": b"MZ", "b.eml": HEAD + b"\r\nhello"})
    message = opened(with_tnef(inner))
    assert [(path, names[-1:]) for path, _, names in shape(message)] == [
        ("1", ()),
        ("2", ("winmail.dat",)),
        ("2.tnef.subject", ()),
        ("2.tnef.body", ()),
        ("2.tnef.1", ("a.exe",)),
        ("2.tnef.2", ("b.eml",)),
        ("2.tnef.2.1", ()),
    ]
    assert [block.part for block in message.headers] == ["header", "2.tnef.2.header"]
    assert [part.container for part in message.parts] == ["", "", "2", "2", "2", "2", ""]
    assert message.defects == ()


def test_attachment_rules_see_members(screens: Screens) -> None:
    by_name = Rule(
        id="n", name="n", condition=AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",)), action=Action.DELETE
    )
    by_size = Rule(
        id="s", name="s", condition=AttachmentCondition(match=AttachmentMatch.SIZE, larger_than_bytes=900), action=Action.DELETE
    )
    for raw in (
        HEAD + b"\r\n" + uuencoded(bytes(1000), "a.exe"),
        HEAD + b"\r\n" + yencoded(bytes(1000), "a.exe"),
        with_tnef(winmail(files={"a.exe": bytes(1000)})),
    ):
        for rule in (by_name, by_size):
            verdict = screens(raw, rule).verdict
            assert verdict.decision is Decision.DELETE
        assert (
            ".uu1" in verdict.findings[0].part or ".yenc1" in verdict.findings[0].part or verdict.findings[0].part.startswith("2")
        )


DAMAGED = [
    HEAD + b"\r\n" + uuencoded(b"hello lottery" * 9, "a.txt").replace(b"end\r\n", b""),
    HEAD + b"\r\n" + uuencoded(b"hello lottery" * 9, "a.txt").replace(b"`\r\nend", b"M!!\r\nend"),
    HEAD + b"\r\n" + yencoded(b"hello lottery", "a.txt").replace(b"size=13 name", b"size=14 name"),
    HEAD + b"\r\n" + yencoded(b"hello lottery", "a.txt").replace(b"crc32=", b"crc32=0 was="),
    HEAD + b"\r\n" + yencoded(b"hello lottery", "a.txt").split(b"=yend")[0],
    HEAD
    + b"\r\n"
    + yencoded(b"hello lottery", "a.txt")
    .replace(b"=ybegin", b"=ybegin part=1 total=2")
    .replace(b"name=a.txt\r\n", b"name=a.txt\r\n=ypart begin=1 end=13\r\n"),
    with_tnef(winmail(body=b"hello lottery\0", files={"a.txt": b"hello lottery"})[:-40]),
    with_tnef(winmail(body=b"hello lottery\0")[:-3] + b"\x01\x01\x00"),
    with_tnef(b"hello lottery"),
    with_tnef(winmail(body=b"hello lottery\0") + attribute(1, 0x69003, mapi({(0x1000, 0x1F): b"ab"})[:-3])),
]


@pytest.mark.parametrize("raw", DAMAGED)
def test_damage_is_a_defect_and_what_is_left_is_screened(screens: Screens, raw: bytes) -> None:
    rule = Rule(id="k", name="k", condition=KeywordCondition(phrases=("unheard of",)), action=Action.DELETE)
    verdict = screens(raw, rule).verdict
    assert (verdict.decision, verdict.hold_reason) == (Decision.HOLD, HoldReason.MALFORMED)
    assert opened(raw).parts[1].content()


@pytest.mark.parametrize(
    "text",
    [
        b"begin 644 a.txt\r\n\r\nnothing",
        b"begin 644 a.txt",
        b"to begin 644 a.txt\r\n#0V%T\r\nend\r\n",
        b"begin here and now\r\n",
        b"begin-base64 644 a.txt\r\nno, not at all!\r\n",
        b"=ybegin is how a yEnc file begins\r\n",
    ],
)
def test_talk_about_files_is_no_file(text: bytes) -> None:
    found = unpack_blocks(text)
    assert (found.members, found.damage) == ([], [])


def test_a_text_of_nothing_but_files_is_read_to_a_limit() -> None:
    found = unpack_blocks(uuencoded(b"x", "a") * (MAX_BLOCKS + 1))
    assert len(found.members) == MAX_BLOCKS
    assert len(found.damage) == 1


def test_what_nests_without_end_is_a_defect() -> None:
    content = b"hello"
    for _ in range(60):
        content = winmail(files={"winmail.dat": content})
    message = opened(with_tnef(content))
    assert any("too deep" in defect.reason for defect in message.defects)
    letter = HEAD + b"\r\nhello"
    for _ in range(12):
        letter = HEAD + b"\r\n" + uuencoded(letter, "a.eml")
    assert opened(letter).parts[-1].content().strip() == b"hello"


@given(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"",
            b"begin 644 a\r\n",
            b"begin 644 a\r\n#0V%T\r\n",
            b"begin-base64 644 a\r\nabcd\r\n",
            b"=ybegin line=128 size=5 name=a\r\n",
        ]
    ),
)
def test_any_bytes_are_a_text(content: bytes, before: bytes) -> None:
    may_have_blocks(before + content)
    unpack_blocks(before + content)


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(1, 30))
def test_any_bytes_are_a_winmail_dat(content: bytes, place: int, length: int) -> None:
    whole = winmail(body=b"b\0", properties={(0x1009, 0x102): compressed(b"{x}"), (0x37, 0x1E): b"s"}, files={"a": b"x"})
    unpack_tnef(b"\x78\x9f\x3e\x22\x01\x00" + content)
    unpack_tnef(whole[:place] + content[:length] + whole[place + length :])
    decompress(content)
    decompress(compressed(b"")[:16] + content)
    rtf_text(content)


@pytest.mark.parametrize(
    "raw",
    [
        b"begin 644 a\r\n" + binascii.b2a_uu(bytes(45)) * 50_000,
        b"begin 644 a\n!0 \n" * 100_000,
        b"=ybegin line=1 size=1 name=a\r\n" * 50_000,
        b"=ybegin line=1 size=1 name=a\r\n" + b"=" * 2_000_000,
        b"=ybegin line=1 size=1 name=a\r\n" + b"=a1234" * 500_000,
        b"begin 644 a\n" * 200_000,
    ],
    ids=["uu", "begins", "ybegins", "escapes", "escaped", "talk"],
)
def test_texts_of_files_take_linear_time(raw: bytes) -> None:
    unpack_blocks(raw)  # the test's time-out is the assertion


@pytest.mark.parametrize("source", [b"\\", b"{\\", b"\\u1", b"\\'", b"\\bin9", b"a"])
def test_rtf_takes_linear_time(source: bytes) -> None:
    rtf_text(source * 300_000)
    decompress(compressed(source * 300_000))
    unpack_tnef(
        winmail(properties={(0x3701, 0x102): source * 100_000}) + attribute(1, 0x69003, b"\xff\xff\xff\x7f" + source * 100_000)
    )
