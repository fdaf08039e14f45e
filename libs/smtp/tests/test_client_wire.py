"""Replies in any chunking, bounded; extensions; commands that nothing can be smuggled into."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import BodyType, Recipient
from postern_smtp.client_data import to_wire
from postern_smtp.client_types import ServerReply, Transaction
from postern_smtp.client_wire import (
    EIGHT_BIT_REFUSED,
    MAX_LINE_BYTES,
    MAX_LINES,
    MAX_REPLY_BYTES,
    TOO_LARGE,
    Extensions,
    RawReply,
    ReplyParser,
    hello_command,
    mail_command,
    rcpt_command,
    refuse_message,
    refuse_path,
)

ALL = Extensions(pipelining=True, eight_bit_mime=True, starttls=True, dsn=True, size=True, max_size_bytes=100)

line_text = st.binary(max_size=60).filter(lambda b: b"\n" not in b and not b.endswith(b"\r"))
replies = st.tuples(st.integers(200, 599), st.lists(line_text, min_size=1, max_size=4))


def encode(code: int, lines: list[bytes], ending: bytes = b"\r\n") -> bytes:
    last = len(lines) - 1
    return b"".join(b"%d%s%s%s" % (code, b"-" if i < last else b" ", line, ending) for i, line in enumerate(lines))


def parse(data: bytes, cuts: list[int] | None = None) -> ReplyParser:
    parser = ReplyParser()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts or []), len(data)]
    for start, end in pairwise(edges):
        parser.feed(data[start:end])
    return parser


@given(st.lists(replies, max_size=5), st.sampled_from([b"\r\n", b"\n"]), st.lists(st.integers(0, 1000), max_size=12))
def test_replies_read_the_same_in_any_chunking(said: list[tuple[int, list[bytes]]], ending: bytes, cuts: list[int]) -> None:
    parser = parse(b"".join(encode(code, lines, ending) for code, lines in said), cuts)
    assert parser.error == ""
    assert list(parser.replies) == [RawReply(code, tuple(lines)) for code, lines in said]
    parser.replies.clear()
    assert parser.is_idle


@given(st.binary(max_size=5000), st.lists(st.integers(0, 5000), max_size=12))
def test_garbage_ends_in_the_same_error_in_any_chunking(data: bytes, cuts: list[int]) -> None:
    whole, cut = parse(data), parse(data, cuts)
    assert (list(whole.replies), whole.error) == (list(cut.replies), cut.error)


@given(st.binary(max_size=3000))
def test_whatever_a_reply_holds_its_text_is_printable_and_short(line: bytes) -> None:
    reply = RawReply(550, (line,) * 3).decoded()
    assert reply.text.isprintable()
    assert len(reply.text) <= 500


@pytest.mark.parametrize("chunk", [7, 4096, 10**6])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "not a reply"),
        (b"25 short\r\n", "not a reply"),
        (b"199 no such class\r\n", "not a reply"),
        (b"2500 four digits\r\n", "not a reply"),
        (b"\r\n", "not a reply"),
        (b"250-a\r\nfoo\r\n", "not a reply"),
        (b"250 " + b"x" * MAX_REPLY_BYTES + b"\r\n", "too long"),
        (b"250 " + b"x" * MAX_REPLY_BYTES, "too long"),
        (b"250-x\r\n" * (MAX_REPLY_BYTES // 7 + 1), "too long"),
    ],
)
def test_what_is_no_reply_is_an_error_that_stays(data: bytes, error: str, chunk: int) -> None:
    parser = ReplyParser()
    for start in range(0, len(data), chunk):
        parser.feed(data[start : start + chunk])
    assert error in parser.error
    parser.feed(b"250 ok\r\n")
    assert not parser.replies
    assert not parser.is_idle


@pytest.mark.parametrize("chunk", [1, 2047, 2048, 2049, 10**6])
def test_a_reply_that_is_longer_than_it_may_be_counts_and_is_cut(chunk: int) -> None:
    """A peer that says 250 to the final dot at length has taken the mail: not to believe it would send the mail again."""
    parser = ReplyParser()
    data = b"250-" + b"a" * 9000 + b"\r\n" + b"250-x\r\n" * 300 + b"250 " + b"b" * 5000 + b"\r\n550 5.1.1 no\r\n"
    for start in range(0, len(data), chunk):
        parser.feed(data[start : start + chunk])
    assert parser.error == ""
    assert [reply.code for reply in parser.replies] == [250, 550]
    assert len(parser.replies[0].lines) == MAX_LINES
    assert parser.replies[0].lines[0] == b"a" * (MAX_LINE_BYTES - 4)
    assert parser.replies[1].lines == (b"5.1.1 no",)
    parser.replies.clear()
    assert parser.is_idle


def test_what_was_cut_off_a_line_counts_for_that_line_only() -> None:
    parser = ReplyParser()
    for _ in range(MAX_REPLY_BYTES // 2000):
        parser.feed(b"250 " + b"x" * 5000)
        parser.feed(b"\n")
    parser.feed(b"2")
    assert parser.error == ""


def test_a_reply_that_has_only_begun_is_not_nothing() -> None:
    assert not parse(b"250-x\r\n").is_idle
    assert not parse(b"2").is_idle


@pytest.mark.parametrize(
    ("raw", "reply"),
    [
        (RawReply(250, (b"2.1.0 Ok",)), ServerReply(250, "2.1.0", "Ok")),
        (RawReply(550, (b"5.1.1 no", b"5.1.1 such user")), ServerReply(550, "5.1.1", "no such user")),
        (RawReply(550, (b"4.1.1 class and code disagree",)), ServerReply(550, "", "4.1.1 class and code disagree")),
        (RawReply(550, (b"5.1.1234 no status",)), ServerReply(550, "", "5.1.1234 no status")),
        (RawReply(550, ("5.\u0661.\u0661 no status".encode(),)), ServerReply(550, "", "5.\u0661.\u0661 no status")),
        (RawReply(421, (b"4.3.2",)), ServerReply(421, "4.3.2", "")),
        (RawReply(451, (b"a\x00\x1b[31mb\tc\xff",)), ServerReply(451, "", "a  [31mb c\N{REPLACEMENT CHARACTER}")),
        (RawReply(250, (b"",)), ServerReply(250, "", "")),
    ],
)
def test_status_and_text_of_a_reply(raw: RawReply, reply: ServerReply) -> None:
    assert raw.decoded() == reply


def test_lines_with_different_codes_count_by_the_last() -> None:
    assert parse(b"250-yes\r\n550 no\r\n").replies[0].code == 550


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((b"SIZE 1000", b"pipelining", b"8bitmime"), Extensions(True, True, size=True, max_size_bytes=1000)),
        ((b"SIZE",), Extensions(size=True)),
        ((b"SIZE 0",), Extensions(size=True)),
        ((b"SIZE many",), Extensions(size=True)),
        ((b"SIZE " + b"9" * 1000,), Extensions(size=True)),
        (
            (b"AUTH PLAIN LOGIN", b"AUTH=CRAM-MD5 PLAIN", b"DSN"),
            Extensions(dsn=True, auth=frozenset({"PLAIN", "LOGIN", "CRAM-MD5"})),
        ),
        ((b"\xff\x00", b"", b"STARTTLS "), Extensions(starttls=True)),
    ],
)
def test_extensions_are_read_whatever_their_case(lines: tuple[bytes, ...], expected: Extensions) -> None:
    assert Extensions.parse(RawReply(250, (b"PIPELINING is the name of this host", *lines))) == expected


def transaction(reverse_path: str = "a@b.example", body: bytes = b"x\r\n", **fields: object) -> Transaction:
    fields = {"body_type": BodyType.SEVEN_BIT, **fields}
    return Transaction(reverse_path, (Recipient(n=0, address="c@d.example"),), body, **fields)  # type: ignore[arg-type]


def test_parameters_go_only_to_a_peer_that_offers_them() -> None:
    message = transaction(body="é\r\n".encode(), ret="HDRS", envid="QQ+2B")
    wire = to_wire(message.body)
    assert mail_command(message, wire, ALL) == b"MAIL FROM:<a@b.example> SIZE=4 BODY=8BITMIME RET=HDRS ENVID=QQ+2B\r\n"
    assert mail_command(message, wire, Extensions()) == b"MAIL FROM:<a@b.example>\r\n"
    recipient = Recipient(n=0, address="c@d.example", notify="SUCCESS,DELAY", orcpt="rfc822;c@d.example")
    assert rcpt_command(recipient, ALL) == b"RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c@d.example\r\n"
    assert rcpt_command(recipient, Extensions()) == b"RCPT TO:<c@d.example>\r\n"


def test_a_dsn_parameter_that_is_not_what_it_should_be_is_left_out() -> None:
    message = transaction(ret="ALL", envid="x\r\nRSET")
    assert mail_command(message, to_wire(message.body), ALL) == b"MAIL FROM:<a@b.example> SIZE=3\r\n"
    recipient = Recipient(n=0, address="c@d.example", notify="NEVER\r\nDATA", orcpt="a b")
    assert rcpt_command(recipient, ALL) == b"RCPT TO:<c@d.example>\r\n"


@given(st.text(st.characters(max_codepoint=0x7F), max_size=30))
def test_no_path_that_passes_can_end_its_command_or_add_a_parameter(path: str) -> None:
    if refuse_path(path, TOO_LARGE) is not None:
        return
    assert not any(ord(c) < 0x20 or ord(c) == 0x7F for c in path)
    unquoted = path.rpartition('"')[2]
    assert not set(unquoted) & set(" <>")


@pytest.mark.parametrize("path", ["a@b.example", "", '"a b>"@c.example', r'"a\" b"@c.example', "a+b=c@[192.0.2.1]"])
def test_paths_that_may_be_written(path: str) -> None:
    assert refuse_path(path, TOO_LARGE) is None


@pytest.mark.parametrize("path", ["a@b\r\nRSET", "a> NOTIFY=NEVER <b@c", '"a"b"@c.example', "a b@c", '"a\n"@c', "a\x7f@b"])
def test_paths_that_may_not(path: str) -> None:
    assert refuse_path(path, TOO_LARGE) is TOO_LARGE


def test_a_path_that_is_not_ascii_is_one_line_all_the_same() -> None:
    assert refuse_path("jürgen@example.com", TOO_LARGE) is None
    for character in "\x85\u2028\u202e\u3000":
        assert refuse_path(f"jü{character}x@example.com", TOO_LARGE) is TOO_LARGE


def test_what_the_peer_cannot_take_is_refused_in_its_place() -> None:
    seven, eight, large = transaction(), transaction(body=b"\xe9\r\n"), transaction(body=b"x" * 99)
    no_8bit = Extensions(size=True)
    assert refuse_message(seven, to_wire(seven.body), no_8bit) is None
    assert refuse_message(eight, to_wire(eight.body), no_8bit) is EIGHT_BIT_REFUSED
    assert refuse_message(eight, to_wire(eight.body), ALL) is None
    assert refuse_message(large, to_wire(large.body), ALL) is TOO_LARGE  # 99 and the CRLF that was missing
    assert refuse_message(large, to_wire(large.body), no_8bit) is None


@pytest.mark.parametrize("name", ["", "a b", "x\r\nQUIT", "jürgen.example", "a>"])
def test_a_name_that_fits_no_helo_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        hello_command("EHLO", name)
