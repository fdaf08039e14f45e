"""Framing: what was framed comes back, and nothing else gets through, with no other error than ValueError."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.contract import decode
from postern_core.disposition import Disposition
from postern_core.envelope import BodyRef, BodyType, Client, Envelope, Gate, Recipient, frame, unframe
from postern_core.ids import new_queue_id
from postern_core.job import Job
from postern_core.verdict import HeldMessage

texts = st.text(st.characters(exclude_categories=["Cs"]))  # no lone surrogates: JSON is UTF-8
times = st.datetimes(timezones=st.just(UTC))
recipients = st.builds(Recipient, n=st.integers(0, 10**6), address=texts, notify=texts, orcpt=texts)
bodies = st.none() | st.builds(BodyRef, name=texts, chunks=st.integers(0, 999), size_bytes=st.integers(0, 2**40), xxh3=texts)
envelopes = st.builds(
    Envelope,
    id=st.builds(new_queue_id, st.integers(0, 2**45)),
    gate=st.sampled_from(Gate),
    reverse_path=texts,
    recipients=st.lists(recipients, min_size=1, max_size=5).map(tuple),
    size_bytes=st.integers(0, 2**40),
    accepted_at=times,
    client=st.builds(Client, address=texts, helo=texts, tls=texts, user=texts),
    body_type=st.sampled_from(BodyType),
    smtputf8=st.booleans(),
    ret=texts,
    envid=texts,
    body=bodies,
)


def _framed(head: bytes) -> bytes:
    return b"PSTN" + len(head).to_bytes(4) + head


@given(envelopes, st.binary())
def test_what_was_framed_comes_back(envelope: Envelope, body: bytes) -> None:
    head, found = unframe(frame(envelope, body), Envelope)
    assert (head, bytes(found)) == (envelope, body)


@given(envelopes, st.binary(min_size=1, max_size=20), st.data())
def test_a_head_that_is_cut_short_is_refused(envelope: Envelope, body: bytes, data: st.DataObject) -> None:
    payload = frame(envelope, body)
    length = data.draw(st.integers(0, len(payload) - len(body) - 1))
    with pytest.raises(ValueError, match=r"shorter than its prefix|not framed"):
        unframe(payload[:length], Envelope)


@given(st.binary() | st.binary().map(lambda tail: b"PSTN" + tail) | st.binary().map(_framed))
def test_garbage_is_a_value_error_and_nothing_else(payload: bytes) -> None:
    for kind in (Envelope, Job, HeldMessage):
        with pytest.raises(ValueError):
            unframe(payload, kind)


@given(envelopes, st.data())
def test_a_damaged_head_is_a_value_error_or_another_head(envelope: Envelope, data: st.DataObject) -> None:
    payload = bytearray(frame(envelope))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        head, _ = unframe(bytes(payload), Envelope)
    except ValueError:
        return
    assert isinstance(head, Envelope)


@pytest.mark.parametrize(
    "head", [b'{"x":' + b"[" * 100_000, b"[" * 100_000, b'{"id":"\xff"}', b"", b"null", b"[]", b'{"version":{}}']
)
def test_a_hostile_head_is_a_value_error(head: bytes) -> None:
    with pytest.raises(ValueError):
        unframe(_framed(head), Envelope)
    with pytest.raises(ValueError):
        decode(head, Disposition)


def test_the_null_reverse_path_and_the_order_of_recipients_survive() -> None:
    envelope = Envelope(
        id=new_queue_id(),
        gate=Gate.ANON,
        reverse_path="",
        recipients=tuple(Recipient(n=n, address=f"{9 - n}@relay.example") for n in range(9)),
        size_bytes=0,
        accepted_at=datetime(2026, 1, 1, tzinfo=UTC),
        client=Client(address="192.0.2.1"),
    )
    head, _ = unframe(frame(envelope), Envelope)
    assert head.reverse_path == ""
    assert [recipient.address[0] for recipient in head.recipients] == list("987654321")
