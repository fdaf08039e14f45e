"""SMTPUTF8 over a real socket: what is stored of a message with UTF-8 in its addresses and header, and what is refused."""

from __future__ import annotations

from email import message_from_bytes, policy

from fixtures.gates import RELAY_DOMAINS, GateUnderTest
from postern_core.policy import GatePolicy, ListenerExtensions, ListenerPolicy, RelayDomain, encode_section

MESSAGE = "From: José <jösé@bücher.example>\r\nSubject: Grüße, 用户\r\n\r\nÜber alles.\r\n".encode()
DOMAINS = (*RELAY_DOMAINS, RelayDomain(pattern="xn--r8jz45g.example"))


async def test_an_international_message_is_stored_as_it_came(gate: GateUnderTest) -> None:
    await gate.policy(DOMAINS)
    wire = await gate.session()
    await wire.expect("MAIL FROM:<jösé@Bücher.example> SMTPUTF8 BODY=8BITMIME", "250 2.1.0")
    await wire.expect("RCPT TO:<用户@例え.example> ORCPT=utf-8;用户@例え.example", "250 2.1.5")
    await wire.expect("RCPT TO:<a@xn--R8JZ45G.example>", "250 2.1.5")
    await wire.expect("DATA", "354")
    await wire.send(MESSAGE + b".\r\n")
    envelope, body = await gate.stored(await wire.reply())
    assert envelope.smtputf8
    assert not envelope.requiretls
    assert envelope.reverse_path == "jösé@xn--bcher-kva.example"
    assert [recipient.address for recipient in envelope.recipients] == ["用户@xn--r8jz45g.example", "a@xn--r8jz45g.example"]
    assert envelope.recipients[0].orcpt == "utf-8;用户@例え.example"
    assert body.endswith(b"\r\n" + MESSAGE)
    assert b"(Postern) with UTF8SMTP\r\n" in body
    assert message_from_bytes(body, policy=policy.SMTPUTF8)["Subject"] == "Grüße, 用户"


async def test_a_single_recipient_in_utf8_is_not_in_the_received_field(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.expect("MAIL FROM:<> SMTPUTF8", "250")
    await wire.expect("RCPT TO:<ä@relay.example>", "250")
    await wire.expect("DATA", "354")
    await wire.send(b"Subject: x\r\n\r\n.\r\n")
    _, body = await gate.stored(await wire.reply())
    assert body.partition(b"Subject:")[0].isascii()
    assert b"for <" not in body


async def test_utf8_is_no_way_round_the_relay_domains(gate: GateUnderTest) -> None:
    await gate.policy(DOMAINS, max_errors=None)
    wire = await gate.session()
    await wire.expect("MAIL FROM:<> SMTPUTF8", "250")
    for path in (
        "ä@elsewhere.example",
        "ä@例.example",
        "a\uff05elsewhere.example@relay.example",
        "x\uff20y@relay.example",
        "ä%b@relay.example",
    ):
        await wire.expect(f"RCPT TO:<{path}>", "550 5.7.1")
    for path in ("a\u2028b@relay.example", "a\x85Bcc: x@relay.example", "\u202ea@relay.example", '"a\u2029b"@relay.example'):
        await wire.expect(f"RCPT TO:<{path}>", "501 5.5.2")
    await wire.expect(b"RCPT TO:<\xff@relay.example>", "501 5.5.2")
    await wire.expect("RCPT TO:<ä@relay。example>", "250")


async def test_utf8_without_smtputf8_is_refused(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.expect("MAIL FROM:<ä@sender.example>", "553 5.6.7")
    await wire.expect("MAIL FROM:<a@sender.example>", "250")
    await wire.expect("RCPT TO:<ä@relay.example>", "553 5.6.7")
    await wire.expect("VRFY ä", "553 5.6.7")
    await wire.expect("VRFY ä SMTPUTF8", "252")


async def test_a_listener_without_smtputf8_neither_announces_nor_takes_it(gate: GateUnderTest) -> None:
    gate.revision += 1
    listener = ListenerPolicy(extensions=ListenerExtensions(smtputf8=False))
    rules = GatePolicy(revision=gate.revision, hostname="mx.example", relay_domains=RELAY_DOMAINS, anon_listener=listener)
    await gate.api.kv_put("POLICY", "gates", encode_section(rules))
    await gate.wait_for(lambda: (newest := gate.listener.newest_rules()) is not None and newest.revision >= gate.revision)
    wire = await gate.connect()
    assert (await wire.reply()).startswith("220")
    await wire.send(b"EHLO c\r\n")
    offered = b""
    while b"250 " not in offered:
        offered += await wire.reader.readline()
    assert b"SMTPUTF8" not in offered
    await wire.expect("MAIL FROM:<> SMTPUTF8", "555 5.5.4")
    await wire.expect("MAIL FROM:<ä@b.example> SMTPUTF8", "553 5.6.7")


async def test_requiretls_is_for_tls(gate: GateUnderTest) -> None:
    wire = await gate.session()
    await wire.expect("MAIL FROM:<> REQUIRETLS", "530 5.7.10")
    await wire.expect("MAIL FROM:<>", "250")
