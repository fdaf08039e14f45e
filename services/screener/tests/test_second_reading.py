"""Messages that readers take for different ones: what any of them would show is screened, and the message is marked.

Each class of docs/reliability.md, "What the screener reads", has a fixture here; `EXE` and `WORD` mark what a client might show.
"""

from __future__ import annotations

import base64
import quopri
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.policy import AttachmentCondition, AttachmentMatch, KeywordCondition, MalformedCondition, Rule, SenderCondition
from postern_core.verdict import Action, Decision, HoldReason, Unscannable
from postern_screener.mime import read_message
from postern_screener.second_reading import MAX_LEAVES, read_again

HEAD = b"From: a@sender.example\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
FILE = b"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=evil.exe\r\n\r\nMZ\r\n"
TEXT = b"Content-Type: text/plain\r\n\r\nthe lottery\r\n"
PARTS = b"--x\r\n" + TEXT + b"--x\r\n" + FILE + b"--x--\r\n"
OTHER = b"--y\r\n" + TEXT + b"--y\r\n" + FILE + b"--y--\r\n"
MIXED = b"Content-Type: multipart/mixed; boundary=x\r\n"
PLAIN = b"Content-Type: text/plain\r\n"
ENCODED = base64.encodebytes(PARTS)
HTML = b"<p>the lot<b></b>tery <i>evil</i></p>\r\n"

# name: (message, what some client shows of it)
AMBIGUOUS: dict[str, tuple[bytes, str]] = {
    "two types, multipart second": (HEAD + PLAIN + MIXED + b"\r\n" + PARTS, "EXE WORD"),
    "two types, multipart first": (HEAD + MIXED + PLAIN + b"\r\n" + PARTS, "EXE WORD"),
    "two types, html second": (HEAD + PLAIN + b"Content-Type: text/html\r\n\r\n" + HTML, "WORD"),
    "two types, html first": (HEAD + b"Content-Type: text/html\r\n" + PLAIN + b"\r\n" + HTML, "WORD"),
    "two types, message second": (
        HEAD + PLAIN + b"Content-Type: message/rfc822\r\n\r\n" + HEAD + MIXED + b"\r\n" + PARTS,
        "EXE WORD",
    ),
    "two types of a part": (
        HEAD + MIXED + b"\r\n--x\r\n" + PLAIN + b"Content-Type: multipart/mixed; boundary=y\r\n\r\n" + OTHER + b"--x--\r\n",
        "EXE WORD",
    ),
    "two boundaries, first": (HEAD + b"Content-Type: multipart/mixed; boundary=x; boundary=y\r\n\r\n" + PARTS, "EXE WORD"),
    "two boundaries, second": (HEAD + b"Content-Type: multipart/mixed; boundary=x; boundary=y\r\n\r\n" + OTHER, "EXE WORD"),
    "two boundaries, both": (
        HEAD
        + b"Content-Type: multipart/mixed; boundary=x; boundary=y\r\n\r\n--x\r\n"
        + TEXT
        + b"--y\r\n"
        + FILE
        + b"--y--\r\n--x--\r\n",
        "EXE WORD",
    ),
    "two types with a boundary each": (
        HEAD + MIXED + b"Content-Type: multipart/mixed; boundary=y\r\n\r\n--x\r\n\r\nhello\r\n--x--\r\n" + OTHER,
        "EXE WORD",
    ),
    "two encodings, base64 second": (
        HEAD
        + b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(b"the lottery"),
        "WORD",
    ),
    "two encodings, base64 first": (
        HEAD + b"Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit\r\n\r\nthe lottery\r\n",
        "WORD",
    ),
    "two encodings, quoted-printable second": (
        HEAD + b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nthe lot=\r\ntery\r\n",
        "WORD",
    ),
    "two charsets, UTF-7 second": (
        HEAD + b"Content-Type: text/plain; charset=us-ascii; charset=utf-7\r\n\r\nthe +AGwAbwB0AHQAZQByAHk-\r\n",
        "WORD",
    ),
    "two charsets, UTF-7 first": (
        HEAD + b"Content-Type: text/plain; charset=utf-7; charset=us-ascii\r\n\r\nthe +AGwAbwB0AHQAZQByAHk-\r\n",
        "WORD",
    ),
    "two charsets, EBCDIC in another field": (
        HEAD + PLAIN + b"Content-Type: text/plain; charset=cp037\r\n\r\n" + "the lottery".encode("cp037") + b"\r\n",
        "WORD",
    ),
    "two dispositions": (
        HEAD
        + MIXED
        + b"\r\n--x\r\nContent-Disposition: inline\r\nContent-Disposition: attachment; filename=evil.exe\r\n\r\nMZ\r\n--x--\r\n",
        "EXE",
    ),
    "a comment in front of the type": (HEAD + b"Content-Type: (c) multipart/mixed; boundary=x\r\n\r\n" + PARTS, "EXE WORD"),
    "nested comments": (HEAD + b"Content-Type: (a (b) text/plain) multipart/mixed; boundary=x\r\n\r\n" + PARTS, "EXE WORD"),
    "a comment that holds another type": (
        HEAD + b"Content-Type: text(multipart/mixed)/plain; boundary=x\r\n\r\n" + PARTS,
        "EXE WORD",
    ),
    "blanks around the slash": (HEAD + b"Content-Type: multipart / mixed; boundary=x\r\n\r\n" + PARTS, "EXE WORD"),
    "no slash": (HEAD + b"Content-Type: multipart; boundary=x\r\n\r\n" + PARTS, "EXE WORD"),
    "NUL in the type": (HEAD + b"Content-Type: multipart/mixed\0; boundary=x\r\n\r\n" + PARTS, "EXE WORD"),
    "NUL in the field name": (HEAD + b"Content-Type\0: multipart/mixed; boundary=x\r\n\r\n" + PARTS, "EXE WORD"),
    "blank before the colon": (HEAD + b"Content-Type : multipart/mixed; boundary=x\r\n\r\n" + PARTS, "EXE WORD"),
    "blank before the colon of an encoding": (
        HEAD + b"Content-Transfer-Encoding : base64\r\n\r\n" + base64.encodebytes(b"the lottery"),
        "WORD",
    ),
    "the type in a folded line": (HEAD + b"Content-Type:\r\n multipart\r\n /mixed;\r\n\tboundary=x\r\n\r\n" + PARTS, "EXE WORD"),
    "a line that is no field before the type": (HEAD + b"no field\r\n" + MIXED + b"\r\n" + PARTS, "EXE WORD"),
    "a line that is no field before From": (b"Subject: s\r\nno field\r\nFrom: bad@evil.example\r\n\r\nhello\r\n", "FROM"),
    "a line that is no field before the subject": (b"X: y\r\nno field\r\nSubject: the lottery\r\n\r\nhello\r\n", "WORD"),
    "no boundary": (HEAD + b"Content-Type: multipart/mixed\r\n\r\n" + PARTS, "EXE WORD"),
    "an empty boundary": (
        HEAD + b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n' + TEXT + b"--\r\n" + FILE + b"----\r\n",
        "EXE WORD",
    ),
    "a boundary that never comes": (HEAD + b"Content-Type: multipart/mixed; boundary=z\r\n\r\n" + PARTS, "EXE WORD"),
    "a boundary that another one begins with": (
        HEAD
        + MIXED
        + b"\r\n--x\r\nContent-Type: multipart/mixed; boundary=xy\r\n\r\n--xy\r\n"
        + TEXT
        + b"--xy\r\n"
        + FILE
        + b"--xy--\r\n--x--\r\n",
        "EXE WORD",
    ),
    "a boundary with a trailing blank": (HEAD + b'Content-Type: multipart/mixed; boundary="x "\r\n\r\n' + PARTS, "EXE WORD"),
    "a boundary in pieces": (
        HEAD + b"Content-Type: multipart/mixed; boundary*1=b; boundary*0=a\r\n\r\n" + PARTS.replace(b"--x", b"--ab"),
        "EXE WORD",
    ),
    "a boundary in a charset": (HEAD + b"Content-Type: multipart/mixed; boundary*=us-ascii''%78\r\n\r\n" + PARTS, "EXE WORD"),
    "a boundary in capitals": (HEAD + b"Content-Type: multipart/mixed; boundary=X\r\n\r\n" + PARTS, "EXE WORD"),
    "a part behind the last delimiter": (
        HEAD + MIXED + b"\r\n--x\r\n\r\nhello\r\n--x--\r\n--x\r\n" + FILE + b"--x\r\n" + TEXT,
        "EXE WORD",
    ),
    "parts in the epilogue": (HEAD + MIXED + b"\r\n--x\r\n\r\nhello\r\n--x--\r\n" + OTHER, "EXE WORD"),
    "parts in the preamble": (HEAD + MIXED + b"\r\n" + OTHER + b"--x\r\n\r\nhello\r\n--x--\r\n", "EXE WORD"),
    "base64 on a multipart": (HEAD + MIXED + b"Content-Transfer-Encoding: base64\r\n\r\n" + ENCODED, "EXE WORD"),
    "base64 on a multipart that is not encoded": (
        HEAD + MIXED + b"Content-Transfer-Encoding: base64\r\n\r\n" + PARTS,
        "EXE WORD",
    ),
    "quoted-printable on a multipart": (
        HEAD
        + MIXED
        + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
        + quopri.encodestring(PARTS).replace(b"ex", b"e=\r\nx"),
        "EXE WORD",
    ),
    "base64 in base64": (
        HEAD
        + MIXED
        + b"Content-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(
            b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + base64.encodebytes(OTHER)
        ),
        "EXE WORD",
    ),
    "base64 on a message, beside another encoding": (
        HEAD
        + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(HEAD + MIXED + b"\r\n" + PARTS),
        "EXE WORD",
    ),
    "nested too deep": (
        HEAD
        + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(400))
        + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"
        + PARTS,
        "EXE WORD",
    ),
}


def a_rule(condition: Any) -> Rule:
    return Rule(id="r", name="r", condition=condition, action=Action.DELETE)


SHOWN = {
    "EXE": a_rule(AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("exe",))),
    "WORD": a_rule(KeywordCondition(phrases=("the lottery",))),
    "FROM": a_rule(SenderCondition(patterns=("evil.example",))),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_both_readings_are_screened_and_the_message_is_marked(screens: Any, name: str) -> None:
    raw, shown = AMBIGUOUS[name]
    for each in shown.split():
        verdict = screens(raw, SHOWN[each]).verdict
        assert (verdict.decision, each) == (Decision.DELETE, each)
        assert verdict.deciding.part
    verdict = screens(raw).verdict
    assert (verdict.decision, verdict.hold_reason) == (Decision.HOLD, HoldReason.MALFORMED)
    assert verdict.obstacles[0].kind is Unscannable.MALFORMED
    assert screens(raw, a_rule(MalformedCondition())).verdict.decision is Decision.DELETE


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_message_is_no_less_so_inside_another(screens: Any, name: str) -> None:
    raw, shown = AMBIGUOUS[name]
    outer = HEAD + b"Content-Type: multipart/mixed; boundary=outer\r\n\r\n--outer\r\nContent-Type: message/rfc822\r\n\r\n"
    assert screens(outer + raw + b"\r\n--outer--\r\n").verdict.hold_reason is HoldReason.MALFORMED
    for each in shown.replace("FROM", "").split():  # senders are those of the outermost message
        assert screens(outer + raw + b"\r\n--outer--\r\n", SHOWN[each]).verdict.decision is Decision.DELETE


def test_what_is_well_formed_is_read_once(screens: Any) -> None:
    message = read_message(HEAD + MIXED + b"\r\n" + PARTS)
    assert [part.path for part in message.parts] == ["1", "2"]
    assert message.defects == ()


def test_where_a_match_lies_is_told(screens: Any) -> None:
    raw, _ = AMBIGUOUS["base64 on a multipart"]
    (finding,) = screens(raw, SHOWN["WORD"]).verdict.findings
    assert (finding.part, finding.offset, finding.excerpt) == ("~1", PARTS.index(b"the lottery"), "the lottery")


def test_the_subject_of_a_message_that_does_not_parse_is_shown(screens: Any) -> None:
    raw, _ = AMBIGUOUS["nested too deep"]
    assert screens(raw).subject == "s"


def test_more_readings_than_are_looked_at_are_said(screens: Any) -> None:
    raw = HEAD + PLAIN + MIXED + b"\r\n" + b"".join(b"--x\r\n\r\n%d\r\n" % n for n in range(MAX_LEAVES + 500))
    verdict = screens(raw).verdict
    assert {obstacle.kind for obstacle in verdict.obstacles} == {Unscannable.MALFORMED, Unscannable.LIMIT}


@given(st.binary(max_size=400))
def test_any_bytes_are_read_again(raw: bytes) -> None:
    reading = read_again(raw)
    assert sum(len(leaf.content) for leaf in reading.leaves) <= 9 * len(raw) + 65536


PIECES = [
    *(b"Content-Type: multipart/mixed; boundary=x\r\n", b"Content-Type: multipart/mixed; boundary=y\r\n"),
    *(b"Content-Type: message/rfc822\r\n", b"Content-Type: text/html\r\n", b"Content-Transfer-Encoding: base64\r\n"),
    *(
        b"Content-Transfer-Encoding: quoted-printable\r\n",
        b"no field\r\n",
        b" folded\r\n",
        b"\r\n",
        b"\r\n",
        b"--x\r\n",
        b"--y\r\n",
    ),
    *(
        b"--x--\r\n",
        b"--",
        b"aGk=\r\n",
        b"=3D\r\n",
        b"\xff\x00\r\n",
        b"\n",
        b"\r",
        b"boundary=",
        b'"',
        b"(",
        b":",
        base64.encodebytes(PARTS),
    ),
]


@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_arrangement_is_read_again(pieces: list[bytes]) -> None:
    raw = b"".join(pieces)
    first, second = read_again(raw), read_again(raw)
    assert [(leaf.path, leaf.content) for leaf in first.leaves] == [(leaf.path, leaf.content) for leaf in second.leaves]
    for part in read_message(raw).parts:
        part.content()
