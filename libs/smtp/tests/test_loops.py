"""How often a message was here: our own Received: fields, whoever carried it since, and nothing that only looks like them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import Client
from postern_core.ids import new_queue_id
from postern_smtp.loops import count_own_passages
from postern_smtp.trace import received_field

OWN = frozenset({"mx.relay.example"})
CLIENT = Client(address="192.0.2.1", helo="by.mx.relay.example", tls="TLSv1.3 TLS_AES_256_GCM_SHA384", user="u")
FOREIGN = b"Received: from a by mx.other.example (Postfix) with ESMTP id 4F1;\r\n\tMon, 1 Jan 2026 00:00:00 +0000\r\n"


def ours(hostname: str = "mx.relay.example", *, only_recipient: str = "a@b.example") -> bytes:
    return received_field(
        client=CLIENT,
        extended=True,
        hostname=hostname,
        queue_id=new_queue_id(),
        at=datetime.now(UTC),
        only_recipient=only_recipient,
    )


def test_our_fields_are_counted_among_those_of_others() -> None:
    message = (
        b"Return-Path: <x@y.example>\r\n" + FOREIGN + ours() + FOREIGN + ours(only_recipient="") + b"Subject: x\r\n\r\nbody\r\n"
    )
    assert count_own_passages(message, OWN) == 2
    assert count_own_passages(message, frozenset()) == 0
    assert count_own_passages(ours() + b"\r\n" + ours() + ours(), OWN) == 1  # the rest is text
    assert count_own_passages(ours() * 3, OWN) == 3


def test_another_postern_is_not_us() -> None:
    assert count_own_passages(ours("mx.elsewhere.example") * 5 + ours() * 2 + b"\r\n", OWN) == 2


@pytest.mark.parametrize(
    "changed",
    [
        lambda field: field.replace(b"\r\n\t", b" "),  # on one line
        lambda field: field.replace(b"\r\n\t", b"\r\n        "),
        lambda field: field.replace(b" ", b"\r\n "),  # folded wherever that is possible
        lambda field: field.replace(b"Received:", b"RECEIVED :"),
        lambda field: field.replace(b"mx.relay.example", b"MX.Relay.Example"),
    ],
)
def test_a_field_that_was_folded_anew_is_still_ours(changed) -> None:  # type: ignore[no-untyped-def]
    assert count_own_passages(changed(ours()) * 2 + b"Subject: x\r\n\r\n", OWN) == 2


@pytest.mark.parametrize(
    "message",
    [
        b"Subject: x\r\n\r\n" + ours() * 3,  # quoted in the text
        ours().replace(b"Received:", b"X-Received:") * 3,
        ours().replace(b"Received:", b"Subject:") * 3,
        ours().replace(b" (Postern)", b"") * 3,
        ours().replace(b"\tid ", b"\tid x") * 3,
        ours().replace(b"\tby ", b"\tnear ") * 3,
        ours().replace(b"mx.relay.example (", b"mx.relay.example.other (") * 3,
        b"Received: from (mx.relay.example (Postern)) by x.example with SMTP id 01m872jv7bexwrfkmpb6w2jh6c;\r\n" * 3,
        b"\r\n" + ours() * 3,
        b"",
    ],
)
def test_what_only_looks_like_ours_is_not_counted(message: bytes) -> None:
    assert count_own_passages(message, OWN) == 0


def test_a_field_that_is_too_long_to_be_ours_is_not_taken_for_what_it_ends_in() -> None:
    field = ours().replace(b"Received: from", b"X-Received: from")
    mark = field.index(b"(Postern)")
    # so that what is looked at in front of the mark begins with `Received`
    long = field.replace(b"\tby ", b"\t" + b"x" * (1000 - mark + 2 - 1) + b" by ")
    assert count_own_passages(long * 2, OWN) == 0


pieces = st.sampled_from(
    [
        b"Received:",
        b" by ",
        b"mx.relay.example",
        b" (Postern)",
        b" with ",
        b" id ",
        b"01m872jv7bexwrfkmpb6w2jh6c;",
        b"\r\n",
        b"\t",
        b"\n",
    ]
)


@given(st.lists(pieces, max_size=60).map(b"".join))
def test_there_are_never_more_than_there_are_marks(message: bytes) -> None:
    assert 0 <= count_own_passages(message, OWN) <= message.count(b"(Postern)")


@pytest.mark.parametrize(
    "piece",
    [
        b" by mx.relay.example (Postern) with ",
        b"(Postern)",
        b"\tby h (Postern) with \r\n id ",
        b"Received: by mx.relay.example (Postern) with x id y\r\n",
    ],
)
def test_a_hostile_header_is_looked_at_within_bounds(piece: bytes) -> None:
    message = b"Received: from x" + piece * (1024 * 1024 // len(piece))
    assert count_own_passages(message, OWN) == 0  # a search whose time is quadratic in it would not come back
