"""Policy sections as bytes, and domain patterns."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.policy import (
    DeliveryPolicy,
    DomainTable,
    GatePolicy,
    KeywordCondition,
    Rule,
    ScreeningPolicy,
    codec,
    decode_section,
    encode_section,
)
from postern_core.policy.domains import normalise_domain, normalise_pattern
from postern_core.verdict import Action

phrases = st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple)
LABELS = st.text("abcxyz0189", min_size=1, max_size=4)
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join)


@given(st.integers(0, 2**53), st.lists(phrases, max_size=4))
def test_a_section_survives_encoding(revision: int, lists: list[tuple[str, ...]]) -> None:
    rules = tuple(
        Rule(id=str(n), name="rule", condition=KeywordCondition(phrases=found), action=Action.HOLD)
        for n, found in enumerate(lists)
    )
    policy = ScreeningPolicy(revision=revision, rules=rules)
    assert decode_section(encode_section(policy), ScreeningPolicy) == policy


@given(st.binary() | st.binary().map(zlib.compress))
def test_garbage_is_a_value_error_and_nothing_else(data: bytes) -> None:
    for kind in (GatePolicy, ScreeningPolicy, DeliveryPolicy):
        with pytest.raises(ValueError, match="policy section"):
            decode_section(data, kind)


@given(st.data())
def test_a_section_that_is_cut_short_is_refused(data: st.DataObject) -> None:
    encoded = encode_section(GatePolicy(revision=1, hostname="mx.example"))
    with pytest.raises(ValueError, match=r"cut short|damaged"):
        decode_section(encoded[: data.draw(st.integers(0, len(encoded) - 1))], GatePolicy)


def test_a_section_that_swells_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_MAX_DECODED_BYTES", 1000)
    with pytest.raises(ValueError, match="larger than"):
        decode_section(zlib.compress(b" " * 10_000), GatePolicy)


def test_a_condition_that_this_program_does_not_know_is_refused_and_not_left_out() -> None:
    """A rule that is not understood must not pass mail: the last good revision stays in force."""
    known = encode_section(
        ScreeningPolicy(
            revision=1, rules=(Rule(id="r", name="r", condition=KeywordCondition(phrases=("x",)), action=Action.HOLD),)
        )
    )
    newer = zlib.compress(zlib.decompress(known).replace(b'"type":"keyword"', b'"type":"telepathy"'))
    assert newer != known
    with pytest.raises(ValueError, match="telepathy"):
        decode_section(newer, ScreeningPolicy)


@given(NAMES, st.sampled_from(["", "."]), st.sampled_from([str.lower, str.upper]))
def test_a_domain_is_normalised_once_and_for_all(name: str, dot: str, case: object) -> None:
    normal = normalise_domain(case(name) + dot)  # type: ignore[operator]
    assert normal == name
    assert normalise_domain(normal) == normal


@given(st.text())
def test_any_text_is_a_domain_or_a_value_error(text: str) -> None:
    for normalise in (normalise_domain, normalise_pattern):
        try:
            normal = normalise(text)
        except ValueError:
            continue
        assert normal.isascii()
        assert normal == normal.lower()
        assert normalise(normal) == normal


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "-a.example", "a-.example", "a b.example", "*.", "*.*.example", "a.*.example", "*", "a" * 64]
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        normalise_pattern(text)


def test_a_domain_of_letters_from_elsewhere_is_kept_as_the_wire_has_it() -> None:
    assert normalise_domain("Grüße.example") == "xn--gre-6ka8l.example"


@given(
    st.dictionaries(st.builds(lambda star, name: star + name, st.sampled_from(["", "*."]), NAMES), st.integers(), max_size=12),
    NAMES,
)
def test_the_most_specific_pattern_wins(table: dict[str, int], domain: str) -> None:
    def covers(pattern: str) -> bool:
        return domain == pattern or (pattern.startswith("*.") and domain.endswith(pattern[1:]))

    covering = [pattern for pattern in table if covers(pattern)]
    best = domain if domain in table else max(covering, key=len, default=None)
    assert DomainTable(table.items()).find(domain) == (None if best is None else table[best])


def test_a_wildcard_does_not_cover_its_own_name_nor_a_name_that_ends_like_it() -> None:
    table = DomainTable([("*.relay.example", 1)])
    assert table.find("relay.example") is None
    assert table.find("evilrelay.example") is None
    assert table.find("a.b.relay.example") == 1


def test_struct_defaults_are_not_shared_state() -> None:
    with pytest.raises(AttributeError):
        GatePolicy(revision=1, hostname="x").anon.max_errors = 1  # type: ignore[misc]
    assert msgspec.structs.replace(GatePolicy(revision=1, hostname="x"), revision=2).revision == 2
