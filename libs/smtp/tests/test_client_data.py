"""What goes out after DATA ends where it should and nowhere else, whatever came in."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postern_smtp.client_data import BLOCK_BYTES, END_OF_DATA, has_only_crlf, to_wire

hostile = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"\0", b"a", b"text", b"\x85", b"\x1c", b"\xe2\x80\xa8", b"\xff"]),
    max_size=40,
).map(b"".join)
orderly = st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b".") + b"\r\n")).map(b"".join)

SMUGGLING = [
    b"\n.\n",
    b"\r.\r",
    b"\r.\n",
    b"\n.\r",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\n.\r\n",
    b"\0.\r\n",
    b"\r\n.\0\r\n",
]
"""The bad ends of data that some server takes for the real one."""


def sent(body: bytes) -> bytes:
    return b"".join(to_wire(body).blocks())


def receive(wire: bytes) -> tuple[bytes, bytes]:
    """What a strict server makes of `wire` (RFC 5321 section 4.5.2): the message, and what is left behind the end of data."""
    message, found, rest = (b"\r\n" + wire).partition(b"\r\n.\r\n")
    assert found
    lines = (message + b"\r\n")[2:].split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines), rest


@given(orderly)
@example(b"")
@example(b".\r\n")
@example(b"\r\n.\r\n")
@example(b"..\r\n.a\r\n")
def test_a_message_in_order_arrives_as_it_was(body: bytes) -> None:
    assert receive(sent(body)) == (body, b"")
    assert not to_wire(body).normalised


@given(hostile)
def test_nothing_that_goes_out_can_be_read_in_two_ways(body: bytes) -> None:
    wire = sent(body)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", wire)
    lines = wire.split(b"\r\n")
    assert lines.index(b".") == len(lines) - 2  # the one dot line is the last
    assert all(line.startswith(b"..") for line in lines[:-2] if line.startswith(b"."))


@given(hostile)
def test_only_line_ends_change(body: bytes) -> None:
    arrived, _ = receive(sent(body))
    assert arrived.replace(b"\r\n", b"\n").removesuffix(b"\n") == re.sub(rb"\r\n|\r", b"\n", body).removesuffix(b"\n")


@given(hostile)
def test_the_quick_look_finds_every_bare_cr_and_lf(body: bytes) -> None:
    assert has_only_crlf(body) == (re.search(rb"\r(?!\n)|(?<!\r)\n", body) is None)


@pytest.mark.parametrize("end", SMUGGLING)
def test_no_smuggled_end_of_data_survives(end: bytes) -> None:
    arrived, rest = receive(sent(b"a" + end + b"MAIL FROM:<x@y.example>\r\n"))
    assert rest == b""
    assert b"MAIL FROM" in arrived


@pytest.mark.parametrize("size", [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 3 * BLOCK_BYTES + 5])
@pytest.mark.parametrize("line", [b"x" * 70 + b"\r\n", b".\r\n", b"\r\n"])
def test_blocks_put_together_are_the_message(size: int, line: bytes) -> None:
    body = (line * (size // len(line) + 1))[: size - 2] + b"\r\n"
    body = body.replace(b"\r\r\n", b"x\r\n")
    *blocks, last = to_wire(memoryview(body)).blocks()
    assert all(len(block) <= BLOCK_BYTES for block in blocks)
    assert bytes(last).endswith(END_OF_DATA)
    assert receive(sent(body)) == (body, b"")


def test_size_and_eight_bit_are_those_of_the_message_before_stuffing() -> None:
    wire = to_wire(b".a\r\n\xe9")
    assert (wire.size_bytes, wire.eight_bit, wire.normalised) == (7, True, False)
    assert wire.stuffed == b"..a\r\n\xe9\r\n"
