"""Messages that readers take for different ones: what any of them would show is screened, and the message is marked.

The messages are in `fixtures.ambiguous`, with what a client might show of each.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.ambiguous import AMBIGUOUS, HEAD, MIXED, PARTS, PLAIN
from postern_core.policy import AttachmentCondition, AttachmentMatch, KeywordCondition, MalformedCondition, Rule, SenderCondition
from postern_core.verdict import Action, Decision, HoldReason, Unscannable
from postern_screener.mime import read_message
from postern_screener.second_reading import MAX_LEAVES, read_again


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
