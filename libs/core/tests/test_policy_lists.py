"""Named lists: values as text and back, and what a condition gets of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.policy import ListKind, Lists, NamedList

VALUES = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=40))
LISTS = Lists(
    [
        NamedList.of("words", ListKind.PHRASES, ["alpha", "beta"]),
        NamedList.of("patterns", ListKind.EXPRESSIONS, ["a+b"]),
        NamedList.of("nothing", ListKind.PHRASES, []),
    ]
)


@given(values=VALUES)
def test_values_come_back_as_they_were(values: list[str]) -> None:
    made = NamedList.of("l", ListKind.PHRASES, values)
    assert (list(made.values), made.count) == (values, len(values))


@pytest.mark.parametrize("length", [1, 9, 70, 65_535, 65_536, 65_537])
def test_long_lists_are_cut_between_values(length: int) -> None:
    values = [f"{n}{'x' * length}" for n in range(5)]
    assert list(NamedList.of("l", ListKind.PHRASES, values).values) == values


def test_a_condition_gets_what_is_of_its_kind() -> None:
    both = (ListKind.PHRASES, ListKind.EXPRESSIONS)
    assert list(LISTS.values(("words", "patterns", "nothing"), *both)) == ["alpha", "beta"]
    assert list(LISTS.values(("words", "patterns"), *reversed(both))) == ["a+b"]
    with pytest.raises(ValueError, match="no list 'gone'"):
        list(LISTS.values(("gone",), *both))
    with pytest.raises(ValueError, match="holds phrases"):
        list(LISTS.values(("words",), ListKind.SENDERS))
