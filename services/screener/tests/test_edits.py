"""Edits and fields on top: what is not changed stays octet for octet, what is added is 7-bit, folded and readable."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_screener.changes.edits import Edit, apply
from postern_screener.changes.fields import with_fields

MAIL = b"Received: from x\r\nSubject: gr\xfc\xdfe\r\n\r\nbody\x00\xff\r\n.\r\n"
TEXT = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=60)


def test_edits_are_made_where_they_belong_and_in_the_order_given() -> None:
    edits = [Edit(9, 9, b"!"), Edit(0, 1, b"A"), Edit(4, 6, b""), Edit(0, 0, b"1"), Edit(0, 0, b"2")]
    assert apply(b"abcdefghi", edits) == b"12Abcdghi!"
    assert apply(memoryview(b"abc"), []) == b"abc"


@pytest.mark.parametrize("edits", [[Edit(0, 3, b""), Edit(2, 4, b"")], [Edit(0, 99, b"")], [Edit(-1, 0, b"")], [Edit(2, 1, b"")]])
def test_edits_that_overlap_or_lie_outside_are_refused(edits: list[Edit]) -> None:
    with pytest.raises(ValueError, match="edit of octets"):
        apply(b"abcdef", edits)


@given(st.lists(st.lists(TEXT, min_size=1, max_size=12).map(" ".join), min_size=1, max_size=4))
def test_fields_on_top_say_what_they_were_given_in_7_bit_and_short_lines(values: list[str]) -> None:
    changed = with_fields(MAIL, [("X-Postern-Note", value) for value in values])
    assert changed.endswith(MAIL)
    added = changed.removesuffix(MAIL)
    assert added.isascii()
    assert all(len(line) <= 998 for line in added.split(b"\r\n"))
    assert b"\r" not in added.replace(b"\r\n", b"")
    assert b"\n" not in added.replace(b"\r\n", b"")
    read = email.message_from_bytes(changed, policy=email.policy.default)
    assert [str(value) for value in read.get_all("X-Postern-Note")] == values
    assert read["Received"] == "from x"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X A", "v"),
        ("X:", "v"),
        ("Xü", "v"),
        ("", "v"),
        ("X", ""),
        ("X", " v"),
        ("X", "a\r\nBcc: b"),
        ("X", "a\nb"),
        ("X", "a\u202eb"),
        ("X", "v" * 901),
        ("X", "v" * 501),
        ("Content-Type", "text/html"),
        ("Received", "from x"),
        ("X-Postern-Copied-By", "r1"),
        ("To", "bücher@example.com"),
    ],
)
def test_what_cannot_be_a_field_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"field|value"):
        with_fields(MAIL, [(name, value)])
