"""Queue ids: their form, their order, and the time in them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.ids import QueueId, accepted_at, derived_queue_id, new_queue_id, parse_queue_id

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LAST_MS = int((datetime(9999, 12, 31, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
moments = st.integers(0, LAST_MS)


def as_uuid(queue_id: QueueId) -> uuid.UUID:
    value = 0
    for character in queue_id:
        value = value * 32 + ALPHABET.index(character)
    return uuid.UUID(int=value)


@given(moments)
def test_it_is_a_uuid_of_version_seven_in_26_characters_that_fit_a_subject(now_ms: int) -> None:
    queue_id = new_queue_id(now_ms)
    assert len(queue_id) == 26
    assert set(queue_id) <= set(ALPHABET)
    assert (as_uuid(queue_id).version, as_uuid(queue_id).variant) == (7, uuid.RFC_4122)
    assert parse_queue_id(queue_id) == queue_id


@given(moments)
def test_the_time_comes_back_to_the_millisecond(now_ms: int) -> None:
    assert accepted_at(new_queue_id(now_ms)) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=now_ms)


@given(moments, moments)
def test_ids_sort_by_time(one: int, other: int) -> None:
    if one < other:
        assert new_queue_id(one) < new_queue_id(other)


def test_two_ids_of_one_millisecond_differ() -> None:
    assert len({new_queue_id(5) for _ in range(1000)}) == 1000


@given(st.datetimes(min_value=datetime(1971, 1, 1), timezones=st.just(UTC)), st.binary(min_size=16), st.binary(min_size=16))  # noqa: DTZ001
def test_an_id_of_our_own_mail_is_the_same_for_the_same_cause_and_no_other(at: datetime, seed: bytes, other: bytes) -> None:
    assert derived_queue_id(at, seed) == derived_queue_id(at, seed)
    assert parse_queue_id(derived_queue_id(at, seed))
    if seed[2:10] != other[2:10]:  # the version and the variant cover a few bits of the first two
        assert derived_queue_id(at, seed) != derived_queue_id(at, other)


def test_a_seed_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        derived_queue_id(datetime(2026, 1, 1, tzinfo=UTC), b"short")


@given(st.text() | st.text(ALPHABET, min_size=20, max_size=30))
def test_whatever_is_no_queue_id_is_refused_and_whatever_is_has_a_time(text: str) -> None:
    try:
        queue_id = parse_queue_id(text)
    except ValueError:
        return
    assert accepted_at(queue_id).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01m872jv7bexwrfkmpb6w2jh6",
        "01m872jv7bexwrfkmpb6w2jh6cc",
        "01M872JV7BEXWRFKMPB6W2JH6C",
        "01m872jv7bexwrfkmpb6w2jh6u",
        "81m872jv7bexwrfkmpb6w2jh6c",
        "01m872jv7bexwrfkmpb6w2jh6c\n",
        "٠1m872jv7bexwrfkmpb6w2jh6c",
        "01m872jv7bexwrfkmpb6w2jh6*",
    ],
)
def test_what_looks_like_one_is_not_enough(text: str) -> None:
    with pytest.raises(ValueError, match="is not a queue id"):
        parse_queue_id(text)


def test_a_time_beyond_the_calendar_is_no_queue_id() -> None:
    """Was: it passed, and reading its time ended the janitor; whoever may store a body may choose its name."""
    year_10000_ms = (
        int((datetime(9999, 12, 31, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1)) + 86_400_000
    )
    assert parse_queue_id(new_queue_id(year_10000_ms - 1))
    for text in ("7" + "z" * 25, new_queue_id(year_10000_ms)):
        with pytest.raises(ValueError, match="is not a queue id"):
            parse_queue_id(text)
