"""Replies and what follows from them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import Recipient
from postern_core.policy import NextHop
from postern_delivery.outcome import Fate, fate_of, of_failed, of_lost, of_outcomes
from postern_smtp.client import ConnectionFailed, ConnectionLost, RecipientOutcome, ServerReply

AT = datetime(2026, 11, 24, tzinfo=UTC)
HOP = NextHop(host="2001:db8::1", port=25)
STAGES = ("mail", "rcpt", "data", "end-of-data")
A, B, C = (Recipient(n=n, address=f"{name}@relay.example") for n, name in enumerate("abc"))


@pytest.mark.parametrize(
    ("code", "stage", "fate"),
    [
        (250, "end-of-data", Fate.DELIVERED),
        (251, "end-of-data", Fate.DELIVERED),
        (450, "rcpt", Fate.RETRY),
        (451, "end-of-data", Fate.RETRY),
        (452, "mail", Fate.RETRY),
        (452, "rcpt", Fate.TOO_MANY),
        (552, "rcpt", Fate.TOO_MANY),
        (552, "end-of-data", Fate.BOUNCE),
        (552, "mail", Fate.BOUNCE),
        (550, "rcpt", Fate.BOUNCE),
        (554, "end-of-data", Fate.BOUNCE),
        (421, "rcpt", Fate.RETRY),
        (354, "data", Fate.RETRY),
        (600, "data", Fate.RETRY),
    ],
)
def test_what_a_reply_means(code: int, stage: str, fate: Fate) -> None:
    assert fate_of(ServerReply(code, "", "x"), stage) is fate


@given(st.integers(200, 599), st.sampled_from(STAGES), st.sampled_from(["", "2.0.0", "4.2.1", "5.1.1"]))
def test_the_first_digit_wins_over_the_enhanced_code(code: int, stage: str, status: str) -> None:
    fate = fate_of(ServerReply(code, status, "x"), stage)
    assert (fate is Fate.DELIVERED) == (code // 100 == 2)
    if fate is Fate.BOUNCE:
        assert code // 100 == 5


@pytest.mark.parametrize("code", [554, 421, 450])
def test_a_host_that_greets_with_a_refusal_says_nothing_about_the_mail(code: int) -> None:
    failed = ConnectionFailed("connect", "refused", ServerReply(code, "", "go away"), HOP)
    results = of_failed((A, B), failed, AT)
    assert {result.fate for result in results} == {Fate.RETRY}
    assert results[0].reply == f"{code} go away"
    assert results[0].next_hop == "[2001:db8::1]:25"


def test_a_lost_connection_keeps_what_was_final_and_marks_who_is_in_doubt() -> None:
    known = RecipientOutcome(A, ServerReply(550, "5.1.1", "no such user"), "rcpt")
    lost = ConnectionLost("end-of-data", "reset", (known,), (B,), HOP)
    results = {result.recipient.n: result for result in of_lost((A, B, C), lost, AT)}
    assert results[0].fate is Fate.BOUNCE
    assert (results[1].fate, results[1].in_doubt) == (Fate.RETRY, True)
    assert (results[2].fate, results[2].in_doubt) == (Fate.RETRY, False)


def test_a_long_reply_is_kept_to_500_characters() -> None:
    [result] = of_outcomes([RecipientOutcome(A, ServerReply(550, "", "x" * 600), "rcpt")], None, AT)
    assert len(result.reply) == 500
