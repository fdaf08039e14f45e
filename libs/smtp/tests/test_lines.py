"""Command lines: the same lines out, however the octets came in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postern_smtp.lines import MAX_AUTH_OCTETS, CommandLines, LineTooLong

pieces = st.sampled_from([b"\r\n", b"\r", b"\n", b"NOOP", b"x", b"\0", b"y" * MAX_AUTH_OCTETS, b"z" * (MAX_AUTH_OCTETS - 2)])


def lines_of(wire: bytes, size: int) -> list[bytes | LineTooLong]:
    lines, found = CommandLines(), []
    for start in range(0, len(wire), size):
        lines.feed(wire[start : start + size])
        while (line := lines.next_line()) is not None:
            found.append(line)
    return found


@given(st.lists(pieces, max_size=8).map(b"".join), st.integers(1, 5000))
def test_any_chunking_gives_the_same_lines(wire: bytes, size: int) -> None:
    expected = [
        line if len(line) + 2 <= MAX_AUTH_OCTETS else LineTooLong(line[:24], len(line) + 2) for line in wire.split(b"\r\n")[:-1]
    ]
    assert lines_of(wire, size) == expected


def test_only_crlf_ends_a_line() -> None:
    assert lines_of(b"RCPT TO:<a@b>\nRCPT TO:<c@d>\r\n", 1) == [b"RCPT TO:<a@b>\nRCPT TO:<c@d>"]


def test_a_flood_without_line_end_is_noticed_and_not_kept() -> None:
    lines = CommandLines()
    for _ in range(300):
        lines.feed(b"x" * 4096)
        assert lines.next_line() is None
    assert lines.is_flood
    assert len(lines.take()) <= MAX_AUTH_OCTETS
