"""Whether mail is from whom it says, over a real socket: keys and records in a real DNS server, signatures by another program."""

from __future__ import annotations

import re

import msgspec
import pytest

from fixtures.dns_server import DnsServer, Misbehaviour
from fixtures.gates import GateUnderTest
from fixtures.signing import MailSigner, txt
from postern_core.policy import DmarcAction, ListenerIdentity, ListenerPolicy, MailAuthentication
from postern_core.policy.filters import ListenerRelaying

MESSAGE = b"From: Ann <ann@sender.example>\r\nTo: a@relay.example\r\nSubject:  two  blanks\r\n\r\nHello \t there. \r\n\r\nBye.\r\n\r\n\r\n"
REFUSED = "550 5.7.1 refused as the author's domain asks (DMARC)"


def checks(dmarc: DmarcAction = DmarcAction.NONE, *sealers: str, defer: bool = False, hostname: str = "") -> ListenerPolicy:
    part = MailAuthentication(enabled=True, dmarc=dmarc, trusted_arc_sealers=sealers, defer_unknown=defer)
    return ListenerPolicy(identity=ListenerIdentity(hostname=hostname), mail_authentication=part)


async def send(gate: GateUnderTest, message: bytes, sender: str = "x@sender.example") -> str:
    wire = await gate.session()
    await wire.expect(f"MAIL FROM:<{sender}>", "250")
    await wire.expect("RCPT TO:<a@relay.example>", "250")
    await wire.expect("DATA", "354")
    await wire.send(message + b".\r\n")
    return await wire.reply()


async def results(gate: GateUnderTest, message: bytes, sender: str = "x@sender.example") -> dict[str, str]:
    """What the gate stamped: method → the rest of its (last) line."""
    _, stored = await gate.stored(await send(gate, message, sender))
    return stamped(stored)


def stamped(stored: bytes) -> dict[str, str]:
    found = re.match(rb"Received: [^\r]*\r\n(?:\t[^\r]*\r\n)*Authentication-Results: mx\.example;\r\n((?:\t[^\r]*\r\n)*)", stored)
    assert found is not None, stored[:1000]
    lines = [line.strip("\t;\r") for line in found[1].decode().splitlines()]
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


async def test_nothing_is_asked_or_stamped_by_default(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    forged = b"Authentication-Results: mx.example; dmarc=pass\r\n" + MESSAGE
    _, stored = await dns_gate.stored(await send(dns_gate, forged))
    assert stored.endswith(forged)
    assert stored.count(b"Authentication-Results") == 1
    assert dns_server.asked == []


# --- SPF


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("v=spf1 ip4:127.0.0.0/8 -all", "pass"),
        ("v=spf1 ip4:192.0.2.1 -all", "fail"),
        ("v=spf1 ip6:2001:db8::/32 ~all", "softfail"),
        ("v=spf1 ?all", "neutral"),
        ("v=spf1", "neutral"),
        ("v=spf1 a:host.example -all", "pass"),
        ("v=spf1 a:far.example/8 -all", "pass"),
        ("v=spf1 a:far.example -all", "fail"),
        ("v=spf1 mx:mail.example -all", "pass"),
        ("v=spf1 include:inner.example -all", "pass"),
        ("v=spf1 include:nothing.example -all", "permerror"),
        ("v=spf1 redirect=inner.example", "pass"),
        ("v=spf1 redirect=nothing.example", "permerror"),
        ("v=spf1 exists:%{ir}.%{v}.%{l1r-}.ok.example -all", "pass"),
        ("v=spf1 ptr:example -all", "pass"),
        ("v=spf1 include:loop.example -all", "permerror"),
        ("v=spf1 a:n1.example a:n2.example a:n3.example -all", "permerror"),
        ("v=spf1 include:dead.example -all", "temperror"),
        ("v=spf1 ip4:127.0.0.1/33 -all", "permerror"),
        ("v=spf1 nonsense -all", "permerror"),
        ("v=spf1 exists:%{z}.example -all", "permerror"),
        ("v=spf2 -all", "none"),
        ("v=spf1 " + "a:far.example " * 10 + "-all", "fail"),
        ("v=spf1 " + "a:far.example " * 11 + "-all", "permerror"),
    ],
)
async def test_spf(dns_gate: GateUnderTest, dns_server: DnsServer, record: str, expected: str) -> None:
    await dns_gate.policy(listener=checks())
    dns_server.add("sender.example", "TXT", txt(record), txt("something else"))
    dns_server.host("host.example", "127.0.0.1")
    dns_server.add("far.example", "A", "127.9.9.9")
    dns_server.add("mail.example", "MX", "10 nowhere.example.", "20 host.example.")
    dns_server.add("inner.example", "TXT", txt("v=spf1 ip4:127.0.0.1 -all"))
    dns_server.add("loop.example", "TXT", txt("v=spf1 include:loop.example -all"))
    dns_server.add("1.0.0.127.in-addr.x.ok.example", "A", "127.0.0.2")
    dns_server.misbehaves["dead.example"] = Misbehaviour.SERVFAIL
    found = await results(dns_gate, MESSAGE)
    assert found["spf"] == f"{expected} smtp.mailfrom=x@sender.example"


async def test_of_two_spf_records_none_counts(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    await dns_gate.policy(listener=checks())
    dns_server.add("sender.example", "TXT", txt("v=spf1 +all"), txt("v=spf1 -all"))
    assert (await results(dns_gate, MESSAGE))["spf"].startswith("permerror ")


async def test_a_null_sender_is_checked_by_its_helo_name(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    await dns_gate.policy(listener=checks())
    dns_server.add("client.example", "TXT", txt("v=spf1 a -all"))
    dns_server.add("client.example", "A", "127.0.0.1")
    assert (await results(dns_gate, MESSAGE, ""))["spf"] == "pass smtp.helo=client.example"


async def test_spf_is_asked_before_the_answer_to_mail(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    await dns_gate.policy(listener=checks())
    dns_server.add("sender.example", "TXT", txt("v=spf1 a -all"))
    wire = await dns_gate.session()
    await wire.expect("MAIL FROM:<x@sender.example>", "250")
    assert ("sender.example", "A") in dns_server.asked


# --- DKIM


@pytest.mark.parametrize("body_form", [b"simple", b"relaxed"])
@pytest.mark.parametrize("header_form", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body", [b"", b"\r\n\r\n", b" \t \r\n\r\n x\t\ty \r\n \r\n", b"line  of text \r\n" * 15_000], ids=len)
async def test_dkim_passes_what_another_program_signed(
    dns_gate: GateUnderTest, dns_server: DnsServer, header_form: bytes, body_form: bytes, body: bytes
) -> None:
    await dns_gate.policy(listener=checks())
    message = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body
    signed = MailSigner(dns_server, "sender.example").signed(message, (header_form, body_form))
    found = await results(dns_gate, signed)
    assert re.fullmatch(
        r'pass header\.d=sender\.example header\.s=s1 header\.a=rsa-sha256 header\.b="?[A-Za-z0-9+/]{8}"?', found["dkim"]
    )


async def test_dkim_by_ed25519(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    await dns_gate.policy(listener=checks())
    signed = MailSigner(dns_server, "sender.example", ed25519=True).signed(MESSAGE)
    assert (await results(dns_gate, signed))["dkim"].startswith("pass header.d=sender.example ")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((b"Hello", b"Hallo"), 'fail reason="the body has changed"'),
        ((b"two  blanks", b"three blanks"), 'fail reason="the signature does not fit"'),
        ((b"d=sender.example", b"d=other.example"), 'permerror reason="there is no such key"'),
        ((b"d=sender.example", b"d=dead.example"), 'temperror reason="no answer about the key"'),
        ((b"a=rsa-sha256", b"a=rsa-sha1"), 'policy reason="an algorithm that is not taken"'),
        ((b"v=1;", b"v=1; l=3;"), 'policy reason="it leaves a part of the body out"'),
        ((b"v=1;", b"v=1; x=1000000000;"), 'fail reason="it has expired"'),
        ((b"i=@sender.example", b"i=@evil.example"), 'neutral reason="the signature cannot be read"'),
        ((b"v=1;", b"v=1; v=1;"), 'neutral reason="the signature cannot be read"'),
        ((b"bh=", b"bh=%%%"), 'neutral reason="the signature cannot be read"'),
    ],
    ids=lambda value: value[1].decode() if isinstance(value, tuple) else "",
)
async def test_dkim_that_does_not_pass(
    dns_gate: GateUnderTest, dns_server: DnsServer, change: tuple[bytes, bytes], expected: str
) -> None:
    await dns_gate.policy(listener=checks())
    dns_server.misbehaves["s1._domainkey.dead.example"] = Misbehaviour.SERVFAIL
    signed = MailSigner(dns_server, "sender.example").signed(MESSAGE)
    assert change[0] in signed
    changed = signed.replace(*change)
    if change[1].startswith(b"d="):
        changed = changed.replace(b"i=@sender.example", b"i=@" + change[1][2:])
    assert (await results(dns_gate, changed))["dkim"].startswith(expected)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("v=DKIM1; p=", 'permerror reason="the key is revoked"'),
        ("v=DKIM1; k=ed25519; p=AAAA", 'permerror reason="the key is of another kind"'),
        ("v=DKIM1; p=AAAA", 'permerror reason="the key cannot be read"'),
        ("v=DKIM2; p=AAAA", 'permerror reason="the key cannot be read"'),
    ],
)
async def test_dkim_keys_that_are_none(dns_gate: GateUnderTest, dns_server: DnsServer, record: str, expected: str) -> None:
    await dns_gate.policy(listener=checks())
    signer = MailSigner(dns_server, "sender.example")
    dns_server.add(signer.key_name, "TXT", txt(record))
    assert (await results(dns_gate, signer.signed(MESSAGE)))["dkim"].startswith(expected)


async def test_ten_signatures_are_looked_at(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    await dns_gate.policy(listener=checks())
    message = b"".join(
        b"DKIM-Signature: v=1; a=rsa-sha256; d=d%d.example; s=s; h=from; bh=AAAA; b=AAAA\r\n" % k for k in range(30)
    )
    _, stored = await dns_gate.stored(await send(dns_gate, message + MESSAGE))
    assert stored.count(b"\tdkim=") == 10


# --- DMARC


async def publish(dns_server: DnsServer, domain: str, record: str) -> None:
    dns_server.add(f"_dmarc.{domain}", "TXT", txt(record))


async def test_dmarc_passes_by_an_aligned_signature_or_by_aligned_spf(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    await dns_gate.policy(listener=checks(DmarcAction.REJECT))
    await publish(dns_server, "sender.example", "v=DMARC1; p=reject")
    by_signature = MailSigner(dns_server, "mail.sender.example").signed(MESSAGE)
    assert (await results(dns_gate, by_signature))["dmarc"] == "pass (p=reject) header.from=sender.example"
    dns_server.add("bounces.sender.example", "TXT", txt("v=spf1 ip4:127.0.0.1 -all"))
    assert (await results(dns_gate, MESSAGE, "b@bounces.sender.example"))["dmarc"].startswith("pass ")


@pytest.mark.parametrize(
    ("action", "record", "expected"),
    [
        (DmarcAction.NONE, "v=DMARC1; p=reject", "taken"),
        (DmarcAction.HOLD, "v=DMARC1; p=reject", "held"),
        (DmarcAction.HOLD, "v=DMARC1; p=quarantine", "held"),
        (DmarcAction.HOLD, "v=DMARC1; p=none", "taken"),
        (DmarcAction.REJECT, "v=DMARC1; p=reject", "refused"),
        (DmarcAction.REJECT, "v=DMARC1; p=quarantine", "held"),
        (DmarcAction.REJECT, "v=DMARC1; p=none", "taken"),
        (DmarcAction.REJECT, "v=DMARC1; p=reject; t=y", "held"),
        (DmarcAction.REJECT, "v=DMARC1; p=none; sp=reject", "taken"),
        (DmarcAction.REJECT, "nothing of the kind", "taken"),
    ],
)
async def test_a_failure_of_dmarc_is_followed_as_far_as_the_policy_says(
    dns_gate: GateUnderTest, dns_server: DnsServer, action: DmarcAction, record: str, expected: str
) -> None:
    await dns_gate.policy(listener=checks(action))
    await publish(dns_server, "sender.example", record)
    reply = await send(dns_gate, MailSigner(dns_server, "evil.example").signed(MESSAGE), "x@evil.example")
    if expected == "refused":
        assert reply == REFUSED
        assert await dns_gate.intake_count() == 0
        return
    envelope, _ = await dns_gate.stored(reply)
    assert bool(envelope.hold) == (expected == "held")
    assert not envelope.hold or envelope.hold.startswith("DMARC: sender.example asks to ")


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({"example": "v=DMARC1; p=reject; psd=y", "sender.example": "v=DMARC1; p=none; sp=quarantine"}, "(p=quarantine)"),
        ({"sender.example": "v=DMARC1; p=none; sp=none; np=reject"}, "(p=reject)"),
        ({"deep.sender.example": "v=DMARC1; p=quarantine", "sender.example": "v=DMARC1; p=reject"}, "(p=quarantine)"),
        ({"example": "v=DMARC1; p=quarantine; psd=y"}, "(p=quarantine)"),
    ],
)
async def test_the_policy_is_found_by_a_walk_up_the_tree(
    dns_gate: GateUnderTest, dns_server: DnsServer, records: dict[str, str], expected: str
) -> None:
    await dns_gate.policy(listener=checks())
    for domain, record in records.items():
        await publish(dns_server, domain, record)
    message = MESSAGE.replace(b"ann@sender.example", b"ann@deep.sender.example")
    assert (await results(dns_gate, message))["dmarc"] == f"fail {expected} header.from=deep.sender.example"


async def test_strict_alignment_and_a_neighbour_below_a_public_suffix_do_not_pass(
    dns_gate: GateUnderTest, dns_server: DnsServer
) -> None:
    await dns_gate.policy(listener=checks())
    await publish(dns_server, "sender.example", "v=DMARC1; p=reject; adkim=s")
    assert (await results(dns_gate, MailSigner(dns_server, "mail.sender.example").signed(MESSAGE)))["dmarc"].startswith("fail ")
    await publish(dns_server, "example", "v=DMARC1; p=reject; psd=y")
    assert (await results(dns_gate, MailSigner(dns_server, "evil.example").signed(MESSAGE)))["dmarc"].startswith("fail ")
    assert (await results(dns_gate, MailSigner(dns_server, "sender.example").signed(MESSAGE)))["dmarc"].startswith("pass ")


@pytest.mark.parametrize(
    "author",
    [
        b"From: a@one.example\r\nFrom: b@two.example\r\n",
        b"From: a@one.example, b@two.example\r\n",
        b"Subject: no author\r\n",
        b"From: nobody\r\n",
        b'From: "ceo@bank.example" <a@one.example> <b@two.example>\r\n',
    ],
)
async def test_who_has_no_single_author_is_held_where_dmarc_is_followed(dns_gate: GateUnderTest, author: bytes) -> None:
    await dns_gate.policy(listener=checks(DmarcAction.REJECT))
    envelope, stored = await dns_gate.stored(await send(dns_gate, author + b"\r\nHello.\r\n"))
    assert stamped(stored)["dmarc"].startswith("permerror ")
    assert envelope.hold == "DMARC: the message does not name a single author's domain"


@pytest.mark.parametrize("silent", ["_dmarc.sender.example", "s1._domainkey.sender.example"])
@pytest.mark.parametrize("defer", [False, True])
async def test_what_dns_does_not_say_is_no_reason_to_refuse_but_may_be_one_to_wait(
    dns_gate: GateUnderTest, dns_server: DnsServer, silent: str, defer: bool
) -> None:
    await dns_gate.policy(listener=checks(DmarcAction.REJECT, defer=defer))
    await publish(dns_server, "sender.example", "v=DMARC1; p=reject")
    signed = MailSigner(dns_server, "sender.example").signed(MESSAGE)
    dns_server.misbehaves[silent] = Misbehaviour.SERVFAIL
    reply = await send(dns_gate, signed)
    if defer:
        assert reply.startswith("451 4.7.1 cannot check the author's domain now")
        assert await dns_gate.intake_count() == 0
        return
    envelope, stored = await dns_gate.stored(reply)
    assert stamped(stored)["dmarc"].startswith("temperror ")
    assert envelope.hold == ""


async def test_dns_that_says_nothing_costs_a_bounded_time(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    await dns_gate.policy(listener=checks(DmarcAction.REJECT))
    signed = MailSigner(dns_server, "sender.example").signed(MESSAGE)
    for name in ("sender.example", "s1._domainkey.sender.example", "_dmarc.sender.example", "_dmarc.example"):
        dns_server.misbehaves[name] = Misbehaviour.SILENT
    _, stored = await dns_gate.stored(await send(dns_gate, signed))  # the wire waits 20 s for a reply
    found = stamped(stored)
    assert [found[method].partition(" ")[0] for method in ("spf", "dkim", "dmarc")] == ["temperror"] * 3


async def test_mail_of_a_client_that_may_relay_is_not_judged(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    policy = msgspec.structs.replace(checks(DmarcAction.REJECT), relaying=ListenerRelaying(networks=("127.0.0.1",)))
    await dns_gate.policy(listener=policy)
    await publish(dns_server, "sender.example", "v=DMARC1; p=reject")
    _, stored = await dns_gate.stored(await send(dns_gate, FORGED[0] + b"\r\n" + MESSAGE))
    assert b"Authentication-Results" not in stored
    assert dns_server.asked == []


async def test_the_results_go_with_the_envelope_and_none_where_nothing_was_asked(
    dns_gate: GateUnderTest, dns_server: DnsServer
) -> None:
    envelope, _ = await dns_gate.stored(await send(dns_gate, FORGED[0] + b"\r\n" + MESSAGE))
    assert envelope.authentication == ()
    await dns_gate.policy(listener=checks())
    dns_server.add("sender.example", "TXT", txt("v=spf1 ip4:192.0.2.1 ~all"))
    await publish(dns_server, "sender.example", "v=DMARC1; p=none")
    envelope, _ = await dns_gate.stored(await send(dns_gate, FORGED[0] + b"\r\n" + MESSAGE))
    found = [(each.method.value, each.result.value) for each in envelope.authentication]
    assert found == [("spf", "softfail"), ("dkim", "none"), ("dmarc", "fail"), ("arc", "none")]


# --- ARC


async def through_a_list(dns_server: DnsServer) -> bytes:
    """Signed by its author, changed and sealed by a list, and sealed again by a forwarder."""
    await publish(dns_server, "sender.example", "v=DMARC1; p=reject")
    signed = MailSigner(dns_server, "sender.example").signed(MESSAGE)
    seen = b"Authentication-Results: list.example; spf=pass smtp.mailfrom=x@sender.example; dmarc=pass header.from=sender.example\r\n"
    changed = signed.replace(b"two  blanks", b"[list] two  blanks").replace(b"Bye.", b"Bye.\r\n-- \r\nthe list")
    return MailSigner(dns_server, "list.example").sealed(seen + changed, b"list.example")


async def forwarded(dns_server: DnsServer) -> bytes:
    seen = b"Authentication-Results: forward.example; arc=pass; dmarc=pass header.from=sender.example\r\n"
    return MailSigner(dns_server, "forward.example").sealed(seen + await through_a_list(dns_server), b"forward.example")


async def test_a_chain_passes(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    await dns_gate.policy(listener=checks())
    for message in (await through_a_list(dns_server), await forwarded(dns_server)):
        found = await results(dns_gate, message)
        assert found["arc"] == "pass smtp.remote-ip=127.0.0.1"
        assert found["dmarc"].startswith("fail ")


@pytest.mark.parametrize(
    "change",
    [
        (b"the list", b"the lost"),
        (b"[list]", b"[lost]"),
        (b"i=1; list.example", b"i=1; evil.example"),
        (b"cv=pass", b"cv=none"),
        (b"cv=pass", b"cv=fail"),
        (b"ARC-Seal: i=1", b"X-Seal: i=1"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=3"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=2"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=99999999999999999999"),
    ],
    ids=lambda change: change[1].decode(),
)
async def test_a_chain_that_somebody_broke_fails(
    dns_gate: GateUnderTest, dns_server: DnsServer, change: tuple[bytes, bytes]
) -> None:
    await dns_gate.policy(listener=checks(DmarcAction.REJECT, "forward.example"))
    message = await forwarded(dns_server)
    assert change[0] in message
    assert await send(dns_gate, message.replace(*change)) == REFUSED


async def test_what_a_trusted_sealer_saw_pass_is_not_refused(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    message = await forwarded(dns_server)
    for sealers, expected in ((("forward.example",), "250"), (("list.example",), "550"), ((), "550")):
        await dns_gate.policy(listener=checks(DmarcAction.REJECT, *sealers))
        assert (await send(dns_gate, message)).startswith(expected), sealers


# --- forged fields, and hostile ones

FORGED = [
    b"Authentication-Results: mx.example; dmarc=pass",
    b"authentication-results : MX.Example; dmarc=pass",
    b"Authentication-Results:mx.example 1; dmarc=pass",
    b"Authentication-Results:\r\n\t mx.example\r\n ;dmarc=pass",
    b"Authentication-Results: (see) (a (nested \\) one)) mx.example (too); dmarc=pass",
    b'Authentication-Results: "mx.example"; dmarc=pass',
    b'Authentication-Results: "mx\\.example"; dmarc=pass',
    b"Authentication-Results: mx.example.; dmarc=pass",
    b"Authentication-Results: relay.mx.example; dmarc=pass",
    b"Authentication-Results: ; dmarc=pass",
    b"Authentication-Results: (never closed mx.example; dmarc=pass",
    b'Authentication-Results: "never closed mx.example; dmarc=pass',
    b"Authentication-Results: " + b"(x)" * 200 + b"\r\n\t" + b"(x)" * 200 + b" mx.example; dmarc=pass",
]
FOREIGN = [
    b"Authentication-Results: (mx.example; (no)) other.example; dmarc=pass",
    b"Authentication-Results: mx.example.org; dmarc=pass",
    b"Authentication-Results: other.example; dmarc=pass (mx.example)",
    b"X-Authentication-Results: mx.example; dmarc=pass",
    b"ARC-Authentication-Results: i=1; mx.example; dmarc=pass",
    b"Subject: x\r\n Authentication-Results: mx.example; dmarc=pass",
]


@pytest.mark.parametrize("field", FORGED)
async def test_a_field_that_claims_to_be_ours_is_removed(dns_gate: GateUnderTest, field: bytes) -> None:
    await dns_gate.policy(listener=checks(hostname="mx.example"))
    if b"relay.mx" in field:
        await dns_gate.policy(listener=checks(hostname="relay.mx.example"))
    _, stored = await dns_gate.stored(await send(dns_gate, b"X-Before: 1\r\n" + field + b"\r\n" + MESSAGE))
    assert stored.endswith(b"X-Before: 1\r\n" + MESSAGE)
    assert stored.count(b"dmarc=pass") == 0


@pytest.mark.parametrize("field", FOREIGN)
async def test_what_others_say_in_their_own_names_stays(dns_gate: GateUnderTest, field: bytes) -> None:
    await dns_gate.policy(listener=checks())
    _, stored = await dns_gate.stored(await send(dns_gate, field + b"\r\n" + MESSAGE))
    assert stored.endswith(b"\r\n" + field + b"\r\n" + MESSAGE)


async def test_the_body_is_not_touched(dns_gate: GateUnderTest) -> None:
    await dns_gate.policy(listener=checks())
    for message in (MESSAGE + FORGED[0] + b"\r\n", b"\r\n" + FORGED[0] + b"\r\n", b" \r\n" + b"x\r\n"):
        envelope, stored = await dns_gate.stored(await send(dns_gate, message))
        assert stored.endswith(b"\r\n" + message)
        assert envelope.size_bytes == len(stored)


@pytest.mark.parametrize(
    "header",
    [
        b"X: a\r\n" + b" a\r\n" * 80_000,
        b"X: a\r\n" * 60_000,
        b"Authentication-Results: mx.example\r\n" * 10_000,
        b"DKIM-Signature: " + b"a=b; " * 100 + b"\r\n",
        b"DKIM-Signature: v=1; h=" + b"from:" * 150 + b"\r\n",
        b"From: " + b"a@b.example, " * 60 + b"c@d.example\r\n",
        b"From: " + b"(" * 900 + b"\r\n",
        b"From: " + b"<" * 900 + b"@\xff\xfe\r\n",
        b"ARC-Seal: i=1; a=b; cv=none\r\nARC-Message-Signature: i=1; b=\r\nARC-Authentication-Results: i=1; x\r\n",
        b"X:" + b" " * 900 + b"x\r\n",
    ],
    ids=range(10),
)
async def test_hostile_headers_are_bounded(dns_gate: GateUnderTest, header: bytes) -> None:
    await dns_gate.policy(listener=checks(DmarcAction.REJECT))
    envelope, stored = await dns_gate.stored(await send(dns_gate, header + MESSAGE))
    assert stamped(stored)["dmarc"].partition(" ")[0] in ("none", "permerror")
    assert b"Authentication-Results: mx.example\r\n" not in stored
    assert envelope.size_bytes == len(stored)


async def test_what_is_stamped_cannot_be_broken_out_of(dns_gate: GateUnderTest, dns_server: DnsServer) -> None:
    await dns_gate.policy(listener=checks())
    found = await results(dns_gate, MESSAGE, '"x; dmarc=pass (\\""@sender.example')
    assert found["spf"] == "none smtp.mailfrom=sender.example"
    assert found["dmarc"].startswith("none ")
