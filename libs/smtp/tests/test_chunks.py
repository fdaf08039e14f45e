"""Chunks (RFC 3030): what a message made of them is, and what is refused, however it is cut."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postern_core.errors import Reply
from postern_core.policy import BareNewline
from postern_smtp import replies
from postern_smtp.chunks import ChunkedData
from postern_smtp.commands import Bdat, chunk_of


def take(
    chunks: list[bytes],
    block: int = 1_000_000,
    *,
    limit: int | None = None,
    bare: BareNewline = BareNewline.REJECT,
    binary: bool = False,
) -> bytes | Reply:
    data = ChunkedData(limit, bare_newline=bare, binary=binary)
    for chunk in chunks:
        data.begin(len(chunk))
        for start in range(0, len(chunk), block):
            data.feed(chunk[start : start + block])
    return data.message()


octets = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", b".", b"\r\n.\r\n", b"text", b"\xe9", b": "]), max_size=20)


@given(
    octets.map(b"".join),
    st.lists(st.integers(0, 60), max_size=5),
    st.integers(1, 9),
    st.none() | st.integers(0, 60),
    st.booleans(),
)
@example(b"a\r\nb", [2], 1, None, False)
def test_any_cut_gives_the_same_outcome(body: bytes, cuts: list[int], block: int, limit: int | None, binary: bool) -> None:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in itertools.pairwise(places)]
    for bare in BareNewline:
        whole = take([body], limit=limit, bare=bare, binary=binary)
        assert take(chunks, block, limit=limit, bare=bare, binary=binary) == whole
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("postern_smtp.chunks._PIECE_OCTETS", 4)
            assert take(chunks, block, limit=limit, bare=bare, binary=binary) == whole
        if isinstance(whole, bytes) and bare is BareNewline.REJECT:
            assert whole == body  # no dot undone, no line end added
        if limit is not None and len(body) > limit:
            assert whole is replies.TOO_BIG


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"a\nb\r\n", replies.BARE_NEWLINE),
        (b"a\r\nb\r", replies.BARE_NEWLINE),
        (b"\n.\n", replies.BARE_NEWLINE),
        (b"nul \0\r\n", replies.NUL_IN_DATA),
        (b"x" * 3000, replies.LONG_LINE),
    ],
)
def test_what_data_refuses_is_refused_in_chunks_too_but_for_a_binary_body(body: bytes, refusal: Reply) -> None:
    assert take([body]) is refusal
    assert take([b"Subject: x\r\n\r\n" + body], binary=True) == b"Subject: x\r\n\r\n" + body
    assert take([b"Subject: x\r\n" + body], binary=True) is refusal  # a header is never binary


def test_bare_newlines_are_normalised_by_setting() -> None:
    assert take([b"a\nb\r", b"c"], bare=BareNewline.NORMALISE) == b"a\r\nb\r\nc"
    assert take([b"a\nb\n"], limit=5, bare=BareNewline.NORMALISE) is replies.TOO_BIG


def test_once_refused_is_refused_and_nothing_is_kept() -> None:
    data = ChunkedData(10)
    data.begin(8)
    data.feed(b"12345678")
    data.begin(3)
    assert (data.refusal, data.buffered_bytes) == (replies.TOO_BIG, 0)
    data.feed(b"123")
    data.begin(1)
    data.feed(b"x")
    data.discard(replies.OUT_OF_MEMORY)
    assert (data.message(), data.buffered_bytes) == (replies.TOO_BIG, 0)


def test_small_blocks_cost_no_more_than_they_hold() -> None:
    data = ChunkedData(None)
    for _ in range(100_000):
        data.feed(b"xy")
    assert len(data._pieces) <= 4
    assert data.buffered_bytes == 200_000


@pytest.mark.parametrize(
    ("line", "chunk"),
    [
        (b"BDAT 12", Bdat(12, last=False)),
        (b"bdat  0  last ", Bdat(0, last=True)),
        (b"BDAT 99999999999999999999", Bdat(99999999999999999999, last=False)),
        (b"BDAT -1", None),
        (b"BDAT", None),
        (b"BDAT 1 2", None),
        (b"BDAT 5\n", None),
        (b"BDAT 5 LAST X", None),
        (b"BDAT " + b"9" * 21, None),
        (b"BDAT \xb25", None),
    ],
)
def test_the_octets_behind_a_refused_line_are_known_or_not(line: bytes, chunk: Bdat | None) -> None:
    assert chunk_of(line) == chunk


def test_a_large_message_costs_no_more_than_twice_its_size() -> None:
    block, blocks = (b"y" * 70 + b"\r\n") * 900, 200
    tracemalloc.start()
    try:
        data = ChunkedData(None)
        for _ in range(blocks):
            data.feed(bytes(bytearray(block)))  # a block of its own, as it comes from a socket
        body = data.message()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(body, bytes)
    assert len(body) == blocks * len(block)
    assert peak < 2.1 * len(body)
