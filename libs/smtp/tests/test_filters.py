"""The parts of a listener that refuse or complete addresses, compiled."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.policy import GatePolicy, ListenerIdentity, ListenerPolicy
from postern_core.policy.filters import DeniedAs, ListenerAddresses, ListenerRecipients, ListenerRelaying, ListenerSenders
from postern_smtp import replies
from postern_smtp.filters import Filters, compile_filters

POLICY = GatePolicy(revision=1, hostname="MX.Relay.example")


def filters(**parts: msgspec.Struct) -> Filters:
    return compile_filters(POLICY, ListenerPolicy(**parts))  # type: ignore[arg-type]


def test_what_the_policy_does_not_ask_for_is_not_there() -> None:
    nothing = filters()
    assert (nothing.rejected_senders, nothing.denied_recipients, nothing.relay_clients) == (None, None, None)
    assert nothing.sender_refusal("a@b.example") is None
    assert nothing.recipient_refusal("a@b.example") is None
    assert nothing.completed("FROM:<ann>") == "FROM:<ann>"


def test_senders_and_recipients_are_refused() -> None:
    given_parts = filters(
        sender_filter=ListenerSenders(rejected=("*.bad.example",)),
        recipient_filter=ListenerRecipients(denied=("boss@relay.example",)),
    )
    assert given_parts.sender_refusal("a@x.bad.example") is replies.SENDER_REJECTED
    assert given_parts.sender_refusal("") is None
    assert given_parts.recipient_refusal("Boss@relay.example") is replies.RECIPIENT_REJECTED
    hidden = filters(recipient_filter=ListenerRecipients(denied=("boss@relay.example",), denied_as=DeniedAs.NO_MAILBOX))
    assert hidden.recipient_refusal("boss@relay.example") is replies.NO_SUCH_MAILBOX


@pytest.mark.parametrize(
    ("argument", "completed"),
    [
        ("FROM:<ann>", "FROM:<ann@example.com>"),
        ("from: <ann> SIZE=10", "from: <ann@example.com> SIZE=10"),
        ('TO:<"a b">', 'TO:<"a b"@example.com>'),
        ('TO:<"a@b">', 'TO:<"a@b"@example.com>'),
        ("TO:<ann> NOTIFY=NEVER", "TO:<ann@example.com> NOTIFY=NEVER"),
        ("FROM:<Postmaster>", "FROM:<Postmaster@example.com>"),
    ],
)
def test_an_address_without_a_domain_is_completed(argument: str, completed: str) -> None:
    assert filters(addresses=ListenerAddresses(default_domain="Example.com.")).completed(argument) == completed


@pytest.mark.parametrize(
    "argument", ["FROM:<>", "FROM:<a@b.example>", "TO:<Postmaster>", "TO:<@a.example:b>", "TO:ann", "TO:<ann", "TO:<a b>", "x"]
)
def test_all_else_is_left_to_the_parser(argument: str) -> None:
    assert filters(addresses=ListenerAddresses(default_domain="example.com")).completed(argument) == argument


@given(st.text(max_size=40))
def test_completing_takes_nothing_away(argument: str) -> None:
    for text in (argument, f"FROM:<{argument}>"):
        completed = filters(addresses=ListenerAddresses(default_domain="example.com")).completed(text)
        assert completed.replace("@example.com", "", 1) in (text, text.replace("@example.com", "", 1))


def test_the_names_of_both_gates_are_our_own_but_not_those_that_everybody_has() -> None:
    assert filters().own_names == {"mx.relay.example"}
    both = msgspec.structs.replace(
        POLICY, auth_listener=ListenerPolicy(identity=ListenerIdentity(hostname="submit.relay.example"))
    )
    assert compile_filters(both, both.anon_listener).own_names == {"mx.relay.example", "submit.relay.example"}
    assert compile_filters(GatePolicy(revision=1, hostname="localhost"), ListenerPolicy()).own_names == frozenset()


@pytest.mark.parametrize(
    "part",
    [
        {"sender_filter": ListenerSenders(rejected=("@",))},
        {"recipient_filter": ListenerRecipients(denied=("a b",))},
        {"relaying": ListenerRelaying(networks=("everybody",))},
        {"addresses": ListenerAddresses(default_domain="no domain")},
    ],
)
def test_what_cannot_be_compiled_is_an_error(part: dict[str, msgspec.Struct]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        filters(**part)
