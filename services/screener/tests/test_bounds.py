"""Messages made to cost: each has its verdict, with the reason, in bounded memory and time (the tests' own time-out is the bound)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fixtures.ambiguous import FILE, HEAD, MIXED, PLAIN
from postern_core.policy import (
    AttachmentCondition,
    AttachmentMatch,
    KeywordCondition,
    Rule,
    ScreeningPolicy,
    SenderCondition,
    UnscannableAction,
    UnscannablePolicy,
)
from postern_core.verdict import Action, Decision, HoldReason
from postern_screener.bounded_texts import MAX_TEXT
from postern_screener.bounds import (
    ENDLESS_LINE,
    MAX_DELIMITERS,
    MAX_FIELDS,
    MAX_HEADER_LINES,
    has_endless_line,
    opened_one_by_one,
    too_costly,
)
from postern_screener.mime import read_message
from postern_screener.ruleset import compile_policy
from postern_screener.sandbox import Sandbox, default_command
from postern_screener.screening import screen
from postern_screener.unscannable import header_fields

MEMORY_MIB = 1024
RULES = (
    Rule(id="k", name="k", condition=KeywordCondition(phrases=("lottery", "win big")), action=Action.DELETE),
    Rule(id="e", name="e", condition=AttachmentCondition(match=AttachmentMatch.EXTENSION, values=("bat",)), action=Action.DELETE),
    Rule(id="s", name="s", condition=SenderCondition(patterns=("bad.example",)), action=Action.DELETE),
)
RULESET = compile_policy(ScreeningPolicy(revision=1, rules=RULES))
MESSAGE = b"Content-Type: message/rfc822\r\n\r\n"
LINES = (b"y" * 70 + b"\r\n") * 14_563  # 1 MiB


def nested(levels: int) -> bytes:
    return HEAD + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(levels))


# name: (message, what the reason says)
COSTLY: dict[str, tuple[Callable[[], bytes], str]] = {
    "10,000 nested multiparts": (lambda: nested(10_000) + b"\r\nhello", "nesting"),
    "10,000 nested multiparts, closed": (
        lambda: nested(10_000) + b"\r\nhello" + b"".join(b"\r\n--b%d--" % n for n in range(9_999, -1, -1)),
        "nesting",
    ),
    "200 nested multiparts around 20 MiB of delimiters": (lambda: nested(200) + b"--b1234\r\n" * 2_330_000, "delimiters"),
    "10,000 messages in one another": (lambda: HEAD + MESSAGE * 10_000 + HEAD + b"\r\nhello", "nesting"),
    "200 messages in one another around 20 MiB": (lambda: HEAD + MESSAGE * 200 + HEAD + b"\r\n" + LINES * 20, "nest too deep"),
    "1,000,000 headers": (lambda: b"".join(b"X-%d: y\r\n" % n for n in range(1_000_000)) + b"\r\nhello", "lines in the header"),
    "1,000,000 headers of one name": (lambda: b"X: y\r\n" * 1_000_000 + b"\r\nhello", "lines in the header"),
    "1,000,000 Content-Types": (lambda: b"Content-Type: text/plain\r\n" * 1_000_000 + b"\r\nhello", "lines in the header"),
    "1,000,000 headers without an end": (lambda: b"X: y\r\n" * 1_000_000, "lines in the header"),
    "1,000,000 headers of a part": (
        lambda: (
            HEAD + MIXED + b"\r\n--x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1_000_000)) + b"\r\nhello\r\n--x--\r\n"
        ),
        "lines in the header of a part",
    ),
    "100,000 headers of many parts": (
        lambda: (
            HEAD + MIXED + b"\r\n" + (b"--x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1000)) + b"\r\nhello\r\n") * 100
        ),
        f"more than {MAX_FIELDS} header fields",
    ),
    "a line of 100 MB": (lambda: HEAD + b"\r\n" + b"y" * 100_000_000, "a line of more than"),
    "a line of 110 MB": (lambda: HEAD + b"\r\n" + b"y" * 110_000_000, "does not parse"),
    "a subject of 100 MB": (lambda: b"Subject: " + b"y" * 100_000_000 + b"\r\n\r\nhello", "a line of more than"),
    "a line of 100 MB, not ASCII": (
        lambda: HEAD + b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "ä".encode() * 50_000_000,
        "a line of more than",
    ),
    "a line of 100 MB, HTML": (
        lambda: HEAD + b"Content-Type: text/html\r\n\r\n" + b"<b>y</b>" * 12_500_000,
        "a line of more than",
    ),
    "4,000,000 parts": (lambda: HEAD + MIXED + b"\r\n" + b"--x\r\n" * 4_000_000, f"more than {MAX_DELIMITERS} lines"),
    "1,000,000 nested comments in the type": (
        lambda: HEAD + b"Content-Type: " + b"(" * 1_000_000 + b"text/plain" + b")" * 1_000_000 + b"\r\n\r\nhello",
        "MIME header field of more than",
    ),
    "5,000 encoded words": (lambda: b"Subject: " + b"=?utf-8?q?a?= " * 5000 + b"\r\n\r\nhello", "encoded words in a line"),
    "2,000,000 encoded words in many lines": (
        lambda: (b"Subject: " + b"=?utf-8?q?a?= " * 1999 + b"\r\n") * 1000 + b"\r\nhello",
        "encoded words",
    ),
    "4,000,000 parameters": (
        lambda: HEAD + b"Content-Type: text/plain" + b"; a=b" * 4_000_000 + b"\r\n\r\nhello",
        "MIME header field of more than",
    ),
    "200,000 names": (
        lambda: HEAD + b"Content-Disposition: attachment" + b"; filename=b.txt" * 200_000 + b"\r\n\r\nhello",
        "MIME header field of more than",
    ),
    "delimiters of two boundaries in one another's place": (
        lambda: (
            HEAD + MIXED + b"Content-Type: multipart/mixed; boundary=y\r\n\r\n" + (b"--x\r\n\r\nhi\r\n--y\r\n\r\nhi\r\n" * 50_000)
        ),
        "2 content-type fields",
    ),
    "types of blanks and of one long word": (
        lambda: (
            HEAD
            + MIXED
            + b"\r\n--x\r\nContent-Type: text"
            + b" " * 60_000
            + b"plain\r\nContent-Type: "
            + b"a" * 60_000
            + b"\r\n\r\nhi\r\n--x--\r\n"
        ),
        "2 content-type fields",
    ),
    "soft line breaks in ten thousand encoded multiparts": (
        lambda: (
            HEAD
            + PLAIN
            + MIXED
            + b"\r\n"
            + b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" * 5000
            + b"=\r\n" * 5_000_000
        ),
        "2 content-type fields",
    ),
    "ten million boundaries": (lambda: HEAD + PLAIN + MIXED + b"\r\n" + b"boundary=\r\n" * 8_000_000, "2 content-type fields"),
    "two encodings on messages in one another": (
        lambda: (
            HEAD
            + (b"Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: quoted-printable\r\n" + MESSAGE) * 200
            + b"\r\n"
            + b"=\r\n" * 3_000_000
        ),
        "2 content-transfer-encoding fields",
    ),
    "a million paddings": (
        lambda: HEAD + b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b"aa=\r\n" * 1_000_000,
        "2 content-transfer-encoding fields",
    ),
    "contradictory types all the way down": (
        lambda: HEAD + (b"Content-Type: text/html\r\n" + MESSAGE) * 100 + HEAD + b"\r\n" + LINES * 8,
        "2 content-type fields",
    ),
}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    stop = asyncio.Event()
    box = Sandbox(default_command(MEMORY_MIB))
    running = asyncio.create_task(box.run(stop))
    yield box
    stop.set()
    await running


@pytest.mark.parametrize("name", COSTLY)
async def test_what_is_made_to_cost_is_malformed_in_bounded_memory(sandbox: Sandbox, an_envelope: Any, name: str) -> None:
    make, reason = COSTLY[name]
    verdict = (await sandbox.inspect(an_envelope(), make(), RULESET, 20, 30)).verdict
    assert (verdict.decision, verdict.hold_reason) == (Decision.HOLD, HoldReason.MALFORMED)
    assert any(reason in obstacle.reason for obstacle in verdict.obstacles), verdict.obstacles


@pytest.mark.parametrize("name", ["10,000 nested multiparts", "5,000 encoded words", "1,000,000 nested comments in the type"])
def test_it_passes_with_a_field_where_the_policy_says_so(an_envelope: Any, name: str) -> None:
    passing = UnscannablePolicy(malformed=UnscannableAction.PASS, limit=UnscannableAction.PASS)
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=RULES, unscannable=passing))
    verdict = screen(an_envelope(), COSTLY[name][0](), ruleset).verdict
    assert verdict.decision is Decision.PASS
    assert header_fields(verdict).startswith(b"X-Postern-Unscannable: malformed; ")


def test_rules_still_meet_what_is_in_it(an_envelope: Any) -> None:
    caught = nested(10_000) + b"Content-Type: text/html\r\n\r\nthe lot<b>tery</b>"
    assert screen(an_envelope(), caught, RULESET).verdict.decision is Decision.DELETE
    attached = nested(10_000) + FILE.replace(b"evil.exe", b"evil.bat")
    assert screen(an_envelope(), attached, RULESET).verdict.decision is Decision.DELETE
    words = b"".join(b"X-%d: y\r\n" % n for n in range(MAX_HEADER_LINES + 1)) + b"\r\nthe lottery"
    assert screen(an_envelope(), words, RULESET).verdict.decision is Decision.DELETE


def test_very_long_text_is_searched_as_far_as_it_says(an_envelope: Any) -> None:
    head = HEAD + b"Content-Type: text/html; charset=utf-8\r\n\r\n"
    filler = "<p>größer</p>\r\n".encode() * (MAX_TEXT // 12)
    verdict = screen(an_envelope(), head + b"the lot<b>tery</b>" + filler, RULESET).verdict
    assert verdict.decision is Decision.DELETE
    verdict = screen(an_envelope(), head + filler, RULESET).verdict
    assert (verdict.decision, verdict.hold_reason) == (Decision.HOLD, HoldReason.LIMIT)
    ascii_only = b"<p>larger</p>\r\n" * (MAX_TEXT // 12) + b"the lottery"
    assert screen(an_envelope(), head + ascii_only, RULESET).verdict.decision is Decision.DELETE
    plain = HEAD + b"\r\n" + LINES * 20 + b"the lottery"
    assert screen(an_envelope(), plain, RULESET).verdict.decision is Decision.DELETE


def test_many_messages_side_by_side_are_no_bomb() -> None:
    one = b"--x\r\n" + MESSAGE + b"Subject: s\r\n\r\n" + LINES[:200_000] + b"\r\n"
    raw = HEAD + MIXED + b"\r\n" + one * 100 + b"--x--\r\n"
    assert opened_one_by_one(raw) != raw
    message = read_message(raw)
    assert message.defects == ()
    assert len(message.parts) == 200
    assert [block.part for block in message.headers[:3]] == ["header", "1.header", "2.header"]


@pytest.mark.parametrize("field", [b"Content-Type: ", b"CONTENT-TYPE:", b"content-type\t :  ", b"Content-Type:\r\n "])
def test_messages_in_one_another_are_counted_however_their_type_is_written(field: bytes) -> None:
    most = 256 // 2
    filler = b"y" * 76 + b"\r\n"
    few, many = (field + b"Message/RFC822\r\n\r\n") * (most - 1), (field + b"Message/RFC822\r\n\r\n") * (most + 3)
    padded = [raw + filler * ((2 * 1024 * 1024 - len(raw)) // len(filler)) for raw in (few, many)]
    assert [opened_one_by_one(raw) != raw for raw in padded] == [False, True]


def test_honest_mail_costs_nothing_that_is_looked_for() -> None:
    assert too_costly(HEAD + MIXED + b"\r\n" + LINES * 2) == ""
    assert too_costly(b"Received: x\r\n" * 1000 + b"\r\n" + LINES) == ""
    assert not has_endless_line(LINES)
    assert not has_endless_line(b"y" * ENDLESS_LINE)
    assert has_endless_line(b"y" * 2 * ENDLESS_LINE + b"\n")
