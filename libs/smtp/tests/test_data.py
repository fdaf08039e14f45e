"""Message data: where it ends, what it is, and what is refused, however it is cut into blocks."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postern_core.errors import Reply
from postern_core.policy import BareNewline
from postern_smtp import replies
from postern_smtp.client_data import _STRETCH_OCTETS, find_dotted
from postern_smtp.data import _END, _STUFFED, MAX_LINE_OCTETS, DataReader, has_long_line

CR, LF, NUL = b"\r", b"\n", b"\0"
# every way that some server once took for the end of data (CVE-2023-51764, -51765, -51766, CVE-2024-27305)
FALSE_ENDINGS = {
    "LF.LF": b"\n.\n",
    "CR.CR": b"\r.\r",
    "CR.LF": b"\r.\n",
    "LF.CR": b"\n.\r",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "CRLF NUL.CRLF": b"\r\n\0.\r\n",
    "CRLF.NUL CRLF": b"\r\n.\0\r\n",
    "NUL.CRLF": b"\0.\r\n",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "CRCRLF.CRLF without CR": b"\r\r\n.\n",
    "NEL": b"\r\n.\xc2\x85",
    "LS": b"\xe2\x80\xa8.\xe2\x80\xa8",
    "FS": b"\x1c.\x1c",
    "GS": b"\x1d.\x1d",
    "RS": b"\x1e.\x1e",
    "VT": b"\x0b.\x0b",
    "FF": b"\x0c.\x0c",
}
CLEAN_TEXT = frozenset({"NEL", "LS", "FS", "GS", "RS", "VT", "FF"})


def read(
    wire: bytes, cut: list[int] | int, *, limit: int | None = None, bare: BareNewline = BareNewline.REJECT
) -> tuple[bytes | Reply | None, bytes, int]:
    """Feed `wire` in blocks of the given sizes (the last one repeats); the outcome, what came behind, and the most that was held."""
    sizes = [cut] if isinstance(cut, int) else [*cut, len(wire) + 1]
    reader = DataReader(limit, bare_newline=bare)
    position, turn, most = 0, 0, 0
    while position < len(wire):
        size = sizes[min(turn, len(sizes) - 1)]
        ended = reader.feed(wire[position : position + size])
        most = max(most, reader.buffered_bytes)
        position += size
        turn += 1
        if ended:
            return reader.message(), reader.rest + wire[position:], most
    return None, b"", most


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 4096])
@pytest.mark.parametrize("name", FALSE_ENDINGS)
def test_only_crlf_dot_crlf_ends_data(name: str, size: int) -> None:
    wire = b"Subject: x\r\n\r\none" + FALSE_ENDINGS[name] + b"MAIL FROM:<evil@x.example>\r\n"
    outcome, rest, _ = read(wire, size)
    assert outcome is None
    outcome, rest, _ = read(wire + b"\r\n.\r\nQUIT\r\n", size)
    assert rest == b"QUIT\r\n"
    if name in CLEAN_TEXT:
        assert isinstance(outcome, bytes)
        assert b"MAIL FROM:<evil" in outcome
    else:
        assert outcome in (replies.BARE_NEWLINE, replies.NUL_IN_DATA)


@pytest.mark.parametrize("size", [1, 3, 4096])
@pytest.mark.parametrize("name", FALSE_ENDINGS)
def test_normalised_data_has_no_bare_newline(name: str, size: int) -> None:
    outcome, _, _ = read(b"one" + FALSE_ENDINGS[name] + b"two\r\n.\r\n", size, bare=BareNewline.NORMALISE)
    if b"\0" in FALSE_ENDINGS[name]:
        assert outcome is replies.NUL_IN_DATA
    else:
        assert isinstance(outcome, bytes)
        assert outcome.replace(b"\r\n", b"").translate(None, b"\r\n") == outcome.replace(b"\r\n", b"")


@pytest.mark.parametrize("at", range(64 * 1024 - 8, 64 * 1024 + 8))
def test_the_end_across_the_edge_of_a_block_is_found(at: int) -> None:
    line = b"x" * 70 + b"\r\n"
    body = (line * 2000)[: at - 2] + b"\r\n"
    if body.count(b"\r") != body.count(b"\n"):
        body = body.replace(b"\r\r\n", b"y\r\n")
    assert read(body + b".\r\nNEXT", 64 * 1024)[:2] == (body, b"NEXT")


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..x\r\n...\r\n.\r\n", b".x\r\n..\r\n"),
        (b".x\r\n.\r\n", b"x\r\n"),
        (b"a\r\n..\r\n..\r\n.\r\n", b"a\r\n.\r\n.\r\n"),
        (b"a.\r\nb..\r\n.\r\n", b"a.\r\nb..\r\n"),
        (b"\xff\x80\r\n.\r\n", b"\xff\x80\r\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_dot_stuffing_is_undone(wire: bytes, message: bytes, size: int) -> None:
    assert read(wire, size)[0] == message


pieces = st.sampled_from([b"\r\n", b".", b"\r\n.", b"\r\n.\r\n", b"\r", b"\n", b"\0", b"a", b"..", b"text of a line", b"\xe9"])


@given(st.lists(pieces, max_size=30).map(b"".join), st.lists(st.integers(1, 9), max_size=40), st.none() | st.integers(0, 60))
@example(b"\r\n.", [3, 1], 5)
@example(b"12345\r\n..\r\n", [1] * 12, 10)
def test_any_chunking_gives_the_same_outcome(wire: bytes, cut: list[int], limit: int | None) -> None:
    for bare in BareNewline:
        whole = read(wire, len(wire) + 1, limit=limit, bare=bare)
        assert read(wire, [*cut, 1], limit=limit, bare=bare)[:2] == whole[:2]
        assert read(wire, 1, limit=limit, bare=bare)[:2] == whole[:2]


@given(st.lists(pieces, max_size=30).map(b"".join), st.lists(st.integers(1, 9), max_size=40), st.none() | st.integers(0, 60))
@example(b"12345\r\n..\r\n.\r\n", [1] * 12, 6)
def test_what_is_put_aside_of_a_large_message_makes_no_difference(wire: bytes, cut: list[int], limit: int | None) -> None:
    for bare in BareNewline:
        whole = read(wire, [*cut, 1], limit=limit, bare=bare)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("postern_smtp.data._BUFFER_OCTETS", 4)
            assert read(wire, [*cut, 1], limit=limit, bare=bare)[:2] == whole[:2]


def test_no_line_keeps_those_before_it_in_the_buffer() -> None:
    """Its dots would be counted anew with each block, and its octets copied, while it grows to the limit."""
    reader = DataReader(None)
    for _ in range(30):
        reader.feed(b"..\r\n" * 15_000 + b"x" * 5000)
        assert len(reader._buffer) < 200_000
    assert reader.buffered_bytes > 1_000_000


def test_the_lines_of_a_large_message_come_out_as_they_went_in() -> None:
    message = b"".join(b"%d .\r\n" % n if n % 1000 else b".\r\n" for n in range(300_000))
    wire = message.replace(b"\r\n.", b"\r\n..")
    assert read(b"." + wire + b".\r\nRSET\r\n", 65_536)[:2] == (message, b"RSET\r\n")
    assert read(b"." + wire + b".\r\nRSET\r\n", 65_536, limit=len(message))[0] == message
    assert read(b"." + wire + b".\r\nRSET\r\n", 65_536, limit=len(message) - 1)[0] is replies.TOO_BIG


@given(st.lists(st.binary(max_size=20).map(lambda line: line.translate(None, b"\r\n\0")), max_size=20), st.integers(1, 50))
def test_what_was_stuffed_comes_out_as_it_was(lines: list[bytes], size: int) -> None:
    message = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    assert read(stuffed + b".\r\nRSET\r\n", size)[:2] == (message, b"RSET\r\n")


@given(st.lists(st.sampled_from([b".", b".x", b"abc", b""]), min_size=1, max_size=30), st.integers(-3, 3), st.integers(1, 9))
def test_the_limit_counts_octets_as_size_does(lines: list[bytes], spare: int, size: int) -> None:
    message = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    outcome, rest, _ = read(stuffed + b".\r\nX", size, limit=len(message) + spare)
    assert rest == b"X"
    assert outcome == (message if spare >= 0 else replies.TOO_BIG)


@pytest.mark.parametrize("what", [_STUFFED, _END])
@pytest.mark.parametrize("at", range(_STRETCH_OCTETS - 8, _STRETCH_OCTETS + 8))
def test_a_line_that_starts_with_a_dot_is_found_wherever_it_stands_behind_another_dot(what: bytes, at: int) -> None:
    text = b"ab." + b"x" * at + what + b"rest"
    assert find_dotted(bytearray(text), what, 0) == text.index(what)


@given(
    st.lists(st.sampled_from([b"a.", b"\r\n.", b"\r\n.\r\n", b"\r\n", b"\r", b"\n", b"x" * (_STRETCH_OCTETS - 3)])),
    st.integers(0, 20),
    st.sampled_from([_STUFFED, _END]),
)
def test_the_search_by_dots_finds_what_a_plain_one_finds(pieces: list[bytes], start: int, what: bytes) -> None:
    text = b"".join(pieces)
    assert find_dotted(bytearray(text), what, start) == text.find(what, start)


@pytest.mark.parametrize("size", [1, 4096])
def test_the_limit_is_that_of_a_message_that_comes_in_one_block_too(size: int) -> None:
    message = b"Subject: x\r\n\r\ntext\r\n"
    assert read(message + b".\r\n", size, limit=len(message))[:2] == (message, b"")
    assert read(message + b".\r\n", size, limit=len(message) - 1)[:2] == (replies.TOO_BIG, b"")


@pytest.mark.parametrize(
    ("last", "line"), [(b"..\r\n", b".\r\n"), (b".x\r\n", b"x\r\n"), (b".x\n", b"x\r\n"), (b".\r\r\n", b"\r\n\r\n")]
)
def test_a_block_that_ends_with_a_dotted_line_is_no_message_yet(last: bytes, line: bytes) -> None:
    reader = DataReader(None, bare_newline=BareNewline.NORMALISE)
    assert not reader.feed(b"text\r\n" + last)
    assert reader.feed(b"more\r\n.\r\n")
    assert reader.message() == b"text\r\n" + line + b"more\r\n"


def test_a_message_over_the_limit_is_read_to_its_end_and_not_kept() -> None:
    wire = (b"y" * 70 + b"\r\n") * 50_000 + b".\r\nNOOP\r\n"
    outcome, rest, most = read(wire, 4096, limit=100_000)
    assert (outcome, rest) == (replies.TOO_BIG, b"NOOP\r\n")
    assert most <= 100_000 + 2 * 4096


def test_a_message_of_dots_over_the_limit_is_not_kept_either() -> None:
    outcome, rest, most = read(b"..\r\n" * 100_000 + b".\r\nNOOP\r\n", 4096, limit=90_000)
    assert (outcome, rest) == (replies.TOO_BIG, b"NOOP\r\n")
    assert most <= 90_000 * 4 // 3 + 2 * 4096


def test_discarded_data_still_ends_where_it_ends() -> None:
    reader = DataReader(None)
    assert not reader.feed(b"half of it\r\n")
    reader.discard(replies.OUT_OF_MEMORY)
    assert reader.buffered_bytes <= 4
    assert not reader.feed(b"more\r\n.")
    assert reader.feed(b"\r\nQUIT\r\n")
    assert (reader.message(), reader.rest) == (replies.OUT_OF_MEMORY, b"QUIT\r\n")


@pytest.mark.parametrize(
    ("octets", "fits"), [(998, True), (MAX_LINE_OCTETS - 2, True), (MAX_LINE_OCTETS - 1, False), (50_000, False)]
)
def test_lines_up_to_2000_octets_pass_and_longer_ones_get_a_clear_reply(octets: int, fits: bool) -> None:
    body = b"a\r\n" * 300 + b"z" * octets + b"\r\nb\r\n"
    assert read(body + b".\r\n", 4096)[0] == (body if fits else replies.LONG_LINE)


@given(st.lists(st.integers(0, MAX_LINE_OCTETS + 5), max_size=6))
def test_a_long_line_is_found_wherever_it_stands(lengths: list[int]) -> None:
    body = b"".join(b"x" * length + b"\r\n" for length in lengths)
    assert has_long_line(body) == any(length + 2 > MAX_LINE_OCTETS for length in lengths)
