"""REQUIRETLS over a real socket, inside TLS; with SMTPUTF8 beside it."""

from __future__ import annotations

import base64
import ssl

from fixtures.gates import GateUnderTest

PLAIN = base64.b64encode("\0anna@example.com\0wörd pass".encode()).decode()


async def test_requiretls_travels_with_the_message(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    wire = await gate.connect(1, client_tls)
    assert (await wire.reply()).startswith("220")
    await wire.send(b"EHLO client.example\r\n")
    offered = b""
    while b"250 " not in offered:
        offered += await wire.reader.readline()
    assert b"250-SMTPUTF8\r\n" in offered
    assert b"250-REQUIRETLS\r\n" in offered
    await wire.expect(f"AUTH PLAIN {PLAIN}", "235")
    await wire.expect("MAIL FROM:<änna@example.com> REQUIRETLS SMTPUTF8", "250 2.1.0")
    await wire.expect("RCPT TO:<用户@elsewhere.example>", "250 2.1.5")
    await wire.expect("DATA", "354")
    await wire.send(b"Subject: x\r\n\r\n.\r\n")
    envelope, body = await gate.stored(await wire.reply())
    assert (envelope.requiretls, envelope.smtputf8) == (True, True)
    assert b" with UTF8SMTPSA (TLSv1.3 " in body
    await wire.expect("MAIL FROM:<anna@example.com>", "250 2.1.0")
    await wire.expect("RCPT TO:<b@elsewhere.example>", "250 2.1.5")
    await wire.expect("DATA", "354")
    await wire.send(b"Subject: x\r\n\r\n.\r\n")
    envelope, _ = await gate.stored(await wire.reply())
    assert (envelope.requiretls, envelope.smtputf8) == (False, False)
