"""Batches: whatever went in comes out, and nothing that `frame_batch` did not make is taken for one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.batch import batch_token, frame_batch, members_in, queue_ids_in, unframe_all
from postern_core.envelope import Recipient, frame
from postern_core.ids import new_queue_id

MEMBERS = st.lists(
    st.tuples(st.builds(Recipient, n=st.integers(0, 9), address=st.text(max_size=20)), st.binary(max_size=50)), min_size=1
)


def framed(members: list[tuple[Recipient, bytes]]) -> bytes:
    return frame_batch([(msgspec.json.encode(head), body) for head, body in members])


@given(MEMBERS)
def test_members_come_out_as_they_went_in(members: list[tuple[Recipient, bytes]]) -> None:
    assert [(head, bytes(body)) for head, body in unframe_all(framed(members), Recipient)] == members


def test_a_message_that_travels_alone_is_a_batch_of_one() -> None:
    head = Recipient(n=1, address="a@b.example")
    assert [(found, bytes(body)) for found, body in unframe_all(frame(head, b"body"), Recipient)] == [(head, b"body")]


@given(MEMBERS, st.data())
def test_one_that_is_cut_short_is_refused(members: list[tuple[Recipient, bytes]], data: st.DataObject) -> None:
    payload = framed(members)
    with pytest.raises(ValueError, match=r"prefix|framed|short"):
        unframe_all(payload[: data.draw(st.integers(0, len(payload) - 1))], Recipient)


@given(MEMBERS)
def test_one_with_more_behind_it_is_refused(members: list[tuple[Recipient, bytes]]) -> None:
    with pytest.raises(ValueError, match="more behind"):
        unframe_all(framed(members) + b"x", Recipient)


@given(st.binary(max_size=200))
def test_rubbish_is_refused(payload: bytes) -> None:
    for data in (payload, b"PSTB" + payload):
        with pytest.raises(ValueError, match=r"\w"):
            unframe_all(data, Recipient)


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="framed"):
        unframe_all(frame_batch([]), Recipient)


@pytest.mark.parametrize("number", [1, 2, 16])
def test_a_token_names_its_members(number: int) -> None:
    ids = [new_queue_id() for _ in range(number)]
    assert queue_ids_in(batch_token(ids)) == ids
    assert members_in(f"intake.anon.{batch_token(ids)}") == number
