"""The filters at the authenticated gate: the same after TLS as before it, AUTH lines included, and addresses that are completed."""

from __future__ import annotations

import base64
import ssl

import pytest

from fixtures.gates import GateUnderTest, Wire
from postern_core.notices import NoticeKind
from postern_core.policy import ListenerPolicy
from postern_core.policy.commands import CommandRule, ListenerCommands, OnViolation
from postern_core.policy.filters import ListenerAddresses, ListenerRelaying, ListenerSenders

PLAIN = base64.b64encode("\0anna@example.com\0wörd pass".encode()).decode()


async def under(gate: GateUnderTest, listener: ListenerPolicy) -> Wire:
    """Past EHLO, before TLS."""
    gate.listener_policy = listener
    await gate.policy()
    return await gate.session()


async def secured(wire: Wire, tls: ssl.SSLContext) -> Wire:
    await wire.start_tls(tls)
    await wire.expect("EHLO client.example", "250 ")
    return wire


async def test_lengths_hold_before_tls_and_again_inside_it(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    commands = ListenerCommands(rules=(CommandRule(verb="NOOP", max_octets=6),))
    wire = await under(gate, ListenerPolicy(commands=commands))
    await wire.expect("NOOP x", "530 5.7.0")
    await secured(wire, client_tls)
    await wire.expect("NOOP x", "500 5.5.2")
    await wire.expect("NOOP", "250")
    await wire.expect("EXPN x", "502 5.5.1")
    # a second port, where TLS begins at once
    wire = await (await gate.connect(1, client_tls)).greeted()
    await wire.expect("NOOP x", "500 5.5.2")
    notice = await gate.notice(NoticeKind.COMMAND_TOO_LONG)
    assert (notice.about, notice.fields) == ("127.0.0.1", {"verb": "NOOP", "octets": 8})


async def test_a_violation_inside_tls_ends_the_connection_where_the_policy_says_so(
    gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    wire = await under(gate, ListenerPolicy(commands=ListenerCommands(on_too_long=OnViolation.CLOSE)))
    await secured(wire, client_tls)
    await wire.expect("RSET " + "x" * 600, "421 4.7.0")
    assert await wire.is_closed()


async def test_a_long_line_of_an_auth_exchange_is_refused_or_ends_the_connection(
    gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    rules = (CommandRule(verb="AUTH", max_octets=100),)
    wire = await secured(await under(gate, ListenerPolicy(commands=ListenerCommands(rules=rules))), client_tls)
    await wire.expect("AUTH PLAIN", "334")
    await wire.expect("x" * 99, "500 5.5.6")
    await wire.expect(f"AUTH PLAIN {PLAIN}", "235")
    assert (await gate.notice(NoticeKind.COMMAND_TOO_LONG)).fields == {"verb": "AUTH", "octets": 101}
    closing = ListenerCommands(rules=rules, on_too_long=OnViolation.CLOSE)
    wire = await secured(await under(gate, ListenerPolicy(commands=closing)), client_tls)
    await wire.expect("AUTH LOGIN", "334")
    await wire.expect("x" * 20_000, "421 4.7.0")
    assert await wire.is_closed()


@pytest.mark.parametrize("verb", ["STARTTLS", "AUTH"])
async def test_what_is_disabled_is_not_announced(gate: GateUnderTest, client_tls: ssl.SSLContext, verb: str) -> None:
    commands = ListenerCommands(rules=(CommandRule(verb=verb, enabled=False),))
    gate.listener_policy = ListenerPolicy(commands=commands)
    await gate.policy()
    plain = verb == "STARTTLS"
    wire = await (await gate.connect() if plain else await gate.connect(1, client_tls)).greeted()
    await wire.send(b"EHLO c\r\n")
    lines = [await wire.reader.readline()]
    while lines[-1][3:4] == b"-":
        lines.append(await wire.reader.readline())
    assert not [line for line in lines if verb.encode() in line]
    await wire.expect(f"{verb} PLAIN" if verb == "AUTH" else verb, "530 5.7.0" if plain else "502 5.5.1")


async def test_an_address_without_a_domain_is_completed_where_the_policy_has_one(
    gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    for domain in ("", "example.com"):
        wire = await secured(await under(gate, ListenerPolicy(addresses=ListenerAddresses(default_domain=domain))), client_tls)
        await wire.expect(f"AUTH PLAIN {PLAIN}", "235")
        if not domain:
            await wire.expect("MAIL FROM:<anna>", "501 5.1.7")
    await wire.expect("MAIL FROM:<anna> BODY=8BITMIME", "250")
    await wire.expect("RCPT TO:<bob>", "250")
    await wire.expect('RCPT TO:<"b c"> NOTIFY=NEVER', "250")
    await wire.expect("RCPT TO:<carol@third.example>", "250")
    await wire.expect("RCPT TO:<Postmaster>", "250")
    await wire.expect("DATA", "354")
    await wire.send(b"Subject: x\r\n\r\ny\r\n.\r\n")
    envelope, _ = await gate.stored(await wire.reply())
    assert envelope.reverse_path == "anna@example.com"
    assert [recipient.address for recipient in envelope.recipients] == [
        "bob@example.com",
        '"b c"@example.com',
        "carol@third.example",
        "Postmaster@relay.example",
    ]


async def test_users_reach_relay_domains_alone_where_the_policy_does_not_let_them_relay(
    gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    wire = await secured(await under(gate, ListenerPolicy(relaying=ListenerRelaying(users=False))), client_tls)
    await wire.expect(f"AUTH PLAIN {PLAIN}", "235")
    await wire.transaction("a@relay.example", "b@x.wild.example", "Postmaster@relay.example")
    await wire.expect("RCPT TO:<c@elsewhere.example>", "550 5.7.1 relaying denied")
    await wire.expect("RCPT TO:<c@wild.example>", "550 5.7.1 relaying denied")
    await wire.expect("RCPT TO:<Postmaster>", "250")


async def test_rejected_senders_are_refused_here_too(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    listener = ListenerPolicy(
        sender_filter=ListenerSenders(rejected=("*.bulk.example", "fax@example.com")),
        addresses=ListenerAddresses(default_domain="example.com"),
    )
    wire = await secured(await under(gate, listener), client_tls)
    await wire.expect(f"AUTH PLAIN {PLAIN}", "235")
    await wire.expect("MAIL FROM:<a@x.bulk.example>", "550 5.7.1")
    await wire.expect("MAIL FROM:<fax>", "550 5.7.1")
    await wire.expect("MAIL FROM:<anna@example.com>", "250")
