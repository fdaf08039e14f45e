"""Never an open relay: the recipients that the anonymous gate takes, and every trick that it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_core.errors import Reply
from postern_core.policy import GatePolicy, ListenerExtensions, RelayDomain
from postern_ingress_anon.greylist import Greylist
from postern_ingress_anon.recipients import compile_rules
from postern_ingress_anon.verification import Asked
from postern_smtp.commands import CommandRefused, Rcpt, parse, split_verb
from postern_smtp.resolver import Resolver

POLICY = GatePolicy(
    revision=1,
    hostname="mx.example",
    relay_domains=(
        RelayDomain(pattern="*.wild.example"),
        RelayDomain(pattern="routed.example", accept=False),
        RelayDomain(pattern="relay.example"),
        RelayDomain(pattern="secret.wild.example", accept=False),
        RelayDomain(pattern="xn--bcher-kva.example"),
    ),
)


def decide(path: bytes, policy: GatePolicy = POLICY) -> str:
    """What becomes of `RCPT TO:` and these octets: the mailbox, or code and status of the refusal."""
    try:
        command = parse(*split_verb(b"RCPT TO:" + path), ListenerExtensions())
    except CommandRefused as refused:
        return str(refused.reply)[:9]
    assert isinstance(command, Rcpt)
    decided = compile_rules(policy, resolver=Resolver(), asked=Asked.nobody_yet(), greylist=Greylist("x")).decide_recipient(
        command.forward_path
    )
    return str(decided)[:9] if isinstance(decided, Reply) else decided


@pytest.mark.parametrize(
    ("path", "mailbox"),
    [
        (b"<a@relay.example>", "a@relay.example"),
        (b"<A.b+tag@RELAY.Example>", "A.b+tag@relay.example"),
        (b"<a@sub.wild.example>", "a@sub.wild.example"),
        (b"<a@deep.sub.wild.example>", "a@deep.sub.wild.example"),
        (b'<"a b"@relay.example>', '"a b"@relay.example'),
        (b"<a@xn--bcher-kva.example>", "a@xn--bcher-kva.example"),
        (b"<Postmaster>", "Postmaster@relay.example"),
        (b"<postmaster@relay.example>", "postmaster@relay.example"),
    ],
)
def test_mail_for_relay_domains_is_taken(path: bytes, mailbox: str) -> None:
    assert decide(path) == mailbox


@pytest.mark.parametrize(
    "path",
    [
        b"<a@elsewhere.example>",
        b"<a@wild.example>",
        b"<a@notrelay.example>",
        b"<a@sub.relay.example>",
        b"<a@relay.example.elsewhere.example>",
        b"<a@elsewhere.example.relay.example>",
        b"<a@routed.example>",
        b"<a@secret.wild.example>",
        b"<a@relay>",
        b"<a@example>",
        b"<a%elsewhere.example@relay.example>",
        b"<a%elsewhere.example%relay.example@relay.example>",
        b"<elsewhere.example!a@relay.example>",
        b"<@relay.example:a@elsewhere.example>",
        b"<@elsewhere.example:a@relay.example>",
        b"<@relay.example,@elsewhere.example:a@relay.example>",
        b'<"a@elsewhere.example"@relay.example>',
        b'<"a%elsewhere.example"@relay.example>',
        b'<"elsewhere.example!a"@relay.example>',
        b'<"a\\@elsewhere.example"@relay.example>',
        b'<"\\a\\@b"@relay.example>',
        b"<a@[127.0.0.1]>",
        b"<a@[IPv6:::1]>",
        b'<"a"@[192.0.2.1]>',
    ],
)
def test_relaying_is_denied(path: bytes) -> None:
    assert decide(path) == "550 5.7.1"


@pytest.mark.parametrize(
    "path",
    [
        b"<a@relay.example@elsewhere.example>",
        b"<a@elsewhere.example@relay.example>",
        b"<a@relay.example.>",
        b"<a@.relay.example>",
        b"<a@relay..example>",
        b"<a@relay.example,b@elsewhere.example>",
        b"<a@relay.example> <b@elsewhere.example>",
        b"<a@elsewhere.example>,<b@relay.example>",
        b"<a@elsewhere.example (relay.example)>",
        b"<a@relay.example\0.elsewhere.example>",
        b"<a@relay.example\r.elsewhere.example>",
        b"<a@relay.example\n.elsewhere.example>",
        b"<a@127.0.0.1>",
        b"<a@2130706433>",
        b"<a>",
        b"<root>",
        b"<>",
        b"<b\xc3\xbccher@relay.example>",
        b"<a@b\xc3\xbccher.example>",
        b"<a@relay\xe3\x80\x82example>",
        b"<a@relay.ex\xef\xbd\x81mple>",
        b"<a@relay.example\xe2\x80\x8b>",
        b"<a\xef\xbc\xa0elsewhere.example@relay.example>",
        b"<a@[relay.example]>",
        b"<:a@relay.example>",
        b"a@relay.example",
        b"<a@relay.example",
    ],
)
def test_malformed_recipients_are_refused(path: bytes) -> None:
    assert decide(path)[0] == "5"


def test_postmaster_alone_needs_a_relay_domain() -> None:
    assert decide(b"<Postmaster>", GatePolicy(revision=1, hostname="mx.example")) == "550 5.1.1"
    only_wild = GatePolicy(revision=1, hostname="mx.example", relay_domains=(RelayDomain(pattern="*.wild.example"),))
    assert decide(b"<Postmaster>", only_wild) == "550 5.1.1"


def test_a_policy_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(ValueError, match="not a domain"):
        compile_rules(
            GatePolicy(revision=1, hostname="mx example"), resolver=Resolver(), asked=Asked.nobody_yet(), greylist=Greylist("x")
        )
    with pytest.raises(ValueError, match="wildcard"):
        compile_rules(
            GatePolicy(revision=1, hostname="mx", relay_domains=(RelayDomain(pattern="a*.example"),)),
            resolver=Resolver(),
            asked=Asked.nobody_yet(),
            greylist=Greylist("x"),
        )


@given(st.binary(max_size=80))
def test_whatever_is_taken_is_for_a_relay_domain(path: bytes) -> None:
    for candidate in (path, b"<" + path + b"@relay.example>", b"<a@" + path + b">", b'<"' + path + b'"@relay.example>'):
        decided = decide(candidate)
        if decided[:1] != "5" or "@" in decided:
            local_part, _, domain = decided.rpartition("@")
            assert domain in ("relay.example", "xn--bcher-kva.example") or domain.endswith(".wild.example")
            assert not set("@%!") & set(local_part)
