"""The SMTP filter, refused senders and recipients, relaying networks and loops, over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.gates import GateUnderTest, Wire
from postern_core.notices import NoticeKind
from postern_core.policy import ListenerPolicy
from postern_core.policy.commands import CommandRule, ListenerCommands, OnViolation
from postern_core.policy.filters import DeniedAs, ListenerAddresses, ListenerRecipients, ListenerRelaying, ListenerSenders

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"


async def filtered(gate: GateUnderTest, *rules: CommandRule, max_errors: int = 10, **what: Any) -> Wire:
    """A session at the gate with this filter, past EHLO."""
    gate.listener_policy = ListenerPolicy(commands=ListenerCommands(rules=rules, **what))
    await gate.policy(max_errors=max_errors)
    return await gate.session()


async def test_a_command_that_is_too_long_is_refused_counted_and_told(gate: GateUnderTest) -> None:
    wire = await filtered(gate, CommandRule(verb="NOOP", max_octets=6), max_errors=2)
    await wire.expect("NOOP", "250")
    await wire.expect("NOOP x", "500 5.5.2")
    await wire.expect("RSET " + "x" * 600, "500 5.5.2")
    await wire.expect("NOOP " + "x" * 20_000, "421 4.7.0")
    assert await wire.is_closed()
    notice = await gate.notice(NoticeKind.COMMAND_TOO_LONG, times=3)
    assert (notice.about, notice.count, notice.fields) == ("127.0.0.1", 3, {"verb": "NOOP", "octets": 8})


@pytest.mark.parametrize(
    ("line", "what", "kind"),
    [
        (b"EHLO " + b"x" * 30_000, "on_too_long", NoticeKind.COMMAND_TOO_LONG),
        (b"EXPN staff", "on_disabled", NoticeKind.COMMAND_DISABLED),
        (b"X-EXPS GSSAPI", "on_unknown", NoticeKind.COMMAND_UNKNOWN),
    ],
)
async def test_a_violation_ends_the_connection_where_the_policy_says_so(
    gate: GateUnderTest, line: bytes, what: str, kind: NoticeKind
) -> None:
    wire = await filtered(gate, **{what: OnViolation.CLOSE})
    await wire.expect(line, "421 4.7.0")
    assert await wire.is_closed()
    notice = await gate.notice(kind)
    assert notice.fields == {"verb": line.split()[0].decode(), "octets": len(line) + 2}


async def test_each_verb_can_be_switched_off(gate: GateUnderTest) -> None:
    verbs = "HELO EHLO MAIL RCPT DATA BDAT RSET NOOP QUIT HELP VRFY EXPN ETRN AUTH STARTTLS"
    for verb in verbs.split():
        gate.listener_policy = ListenerPolicy(commands=ListenerCommands(rules=(CommandRule(verb=verb, enabled=False),)))
        await gate.policy()
        wire = await gate.connect()
        assert (await wire.reply()).startswith("220")
        await wire.expect(verb, "502 5.5.1")
    assert (await gate.notice(NoticeKind.COMMAND_DISABLED)).fields == {"verb": "HELO", "octets": 6}


async def test_an_operator_adds_a_row_for_another_verb(gate: GateUnderTest) -> None:
    wire = await filtered(
        gate, CommandRule(verb="XEXCH50", max_octets=20, enabled=False), CommandRule(verb="X-EXPS", max_octets=20)
    )
    await wire.expect("XEXCH50 1 2", "502 5.5.1")
    await wire.expect("X-EXPS", "500 5.5.2")  # no violation, and no command either
    await wire.expect("X-EXPS " + "x" * 20, "500 5.5.2")
    assert (await gate.notice(NoticeKind.COMMAND_DISABLED)).fields["verb"] == "XEXCH50"
    assert (await gate.notice(NoticeKind.COMMAND_TOO_LONG)).fields == {"verb": "X-EXPS", "octets": 29}


async def test_a_changed_filter_holds_from_the_next_command_on(gate: GateUnderTest) -> None:
    wire = await filtered(gate)
    await wire.expect("NOOP x", "250")
    await filtered(gate, CommandRule(verb="NOOP", max_octets=6))
    await wire.expect("NOOP x", "500 5.5.2")


async def test_rejected_senders_are_refused_at_mail(gate: GateUnderTest) -> None:
    gate.listener_policy = ListenerPolicy(
        sender_filter=ListenerSenders(rejected=("bulk.example", "*.bulk.example", "joe@else.example"))
    )
    await gate.policy(max_errors=None)
    wire = await gate.session()
    for sender in ("a@bulk.example", "A@X.Bulk.example", "Joe@else.example", '"joe"@else.example'):
        await wire.expect(f"MAIL FROM:<{sender}> SIZE=10", "550 5.7.1 sender address rejected")
    for sender in ("", "jane@else.example", "a@notbulk.example"):
        await wire.expect(f"MAIL FROM:<{sender}>", "250")
        await wire.expect("RSET", "250")
    notice = await gate.notice(NoticeKind.SENDER_REFUSED)
    assert (notice.about, notice.fields) == ("127.0.0.1", {"reverse_path": "a@bulk.example"})
    assert (await wire.message(MESSAGE)).startswith("250")


@pytest.mark.parametrize(("denied_as", "reply"), [(DeniedAs.DENIED, "550 5.7.1"), (DeniedAs.NO_MAILBOX, "550 5.1.1")])
async def test_denied_recipients_are_refused_at_rcpt_and_the_others_get_the_message(
    gate: GateUnderTest, denied_as: DeniedAs, reply: str
) -> None:
    gate.listener_policy = ListenerPolicy(
        recipient_filter=ListenerRecipients(denied=("everybody@relay.example", "*.secret.wild.example"), denied_as=denied_as)
    )
    await gate.policy()
    wire = await gate.session()
    await wire.transaction("a@relay.example")
    for recipient in ("Everybody@RELAY.example", "a@x.secret.wild.example", '"everybody"@relay.example'):
        await wire.expect(f"RCPT TO:<{recipient}>", reply)
    await wire.expect("RCPT TO:<everybody@elsewhere.example>", "550 5.7.1 relaying denied")
    await wire.expect("DATA", "354")
    await wire.send(MESSAGE + b".\r\n")
    envelope, _ = await gate.stored(await wire.reply())
    assert [recipient.address for recipient in envelope.recipients] == ["a@relay.example"]
    notice = await gate.notice(NoticeKind.RECIPIENT_REFUSED, times=3)
    assert (notice.about, notice.count, notice.fields["recipient"]) == ("127.0.0.1", 3, "Everybody@relay.example")


async def test_only_a_client_of_a_named_network_may_relay(gate: GateUnderTest) -> None:
    for networks, answer in (
        ((), "550 5.7.1"),
        (("192.0.2.0/24", "::1"), "550 5.7.1"),
        (("192.0.2.0/24", "127.0.0.0/8"), "250 2.1.5"),
    ):
        gate.listener_policy = ListenerPolicy(relaying=ListenerRelaying(networks=networks))
        await gate.policy()
        wire = await gate.session()
        await wire.transaction("a@relay.example")
        await wire.expect("RCPT TO:<b@elsewhere.example>", answer)
    # mail leaves by routes, which go by domain; a source route is dropped
    await wire.expect("RCPT TO:<b@[192.0.2.1]>", "550 5.1.2")
    await wire.expect("RCPT TO:<@third.example:c@elsewhere.example>", "250")
    await wire.expect("DATA", "354")
    await wire.send(MESSAGE + b".\r\n")
    envelope, _ = await gate.stored(await wire.reply())
    assert [recipient.address for recipient in envelope.recipients] == [
        "a@relay.example",
        "b@elsewhere.example",
        "c@elsewhere.example",
    ]


async def test_an_address_without_a_domain_is_refused_here_by_default(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.expect("MAIL FROM:<ann>", "501 5.1.7")
    await wire.transaction()
    await wire.expect("RCPT TO:<ann>", "501 5.1.3")
    assert gate.listener_policy.addresses == ListenerAddresses()


async def test_a_message_that_was_here_twice_is_a_loop(gate: GateUnderTest) -> None:
    wire = await gate.session()
    body = MESSAGE
    for _ in range(2):
        _, stored = await gate.stored(await wire.message(body))
        body = stored
    assert body.count(b"by mx.example (Postern)") == 2
    assert await wire.message(body) == "554 5.4.6 this message was here twice before, mail loop"
    # what another server's gate of the same make put there is no matter of ours
    foreign = body.replace(b"by mx.example ", b"by mx.other.example ")
    assert (await wire.message(foreign)).startswith("250")
    assert (await wire.message(b"Subject: quoted\r\n\r\n" + body)).startswith("250")


async def test_too_many_hops_are_refused_by_the_limit_of_the_policy(gate: GateUnderTest) -> None:
    for limit in (50, 15):
        await gate.policy(max_hops=limit)
        wire = await gate.session()
        assert (await wire.message(b"Received: from a by b\r\n" * limit + MESSAGE)).startswith("250")
        assert (await wire.message(b"Received: from a by b\r\n" * (limit + 1) + MESSAGE)).startswith("554 5.4.6")
