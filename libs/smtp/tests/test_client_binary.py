"""Binary messages (RFC 3030) as the client hands them on: by BDAT where the peer takes them, as text elsewhere, or not at all."""

from __future__ import annotations

import base64
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.smart_host import SmartHost
from postern_core.envelope import BodyType, Recipient
from postern_core.policy import NextHop, RouteTls
from postern_smtp.client import ClientOptions, ConnectionLost, RecipientOutcome, SmtpClient, Transaction
from postern_smtp.client_data import has_only_crlf
from postern_smtp.client_seven_bit import to_text
from postern_smtp.data import has_long_line

OCTETS = bytes(range(256)) * 3 + b"\r\n.\r\nQUIT\r\n\n.\n\r"
TEXT = "Grüße\r\n".encode()
MIXED = (
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + TEXT + b"\r\n"
    b"--b\r\nContent-Type: image/x-any\r\nContent-Transfer-Encoding: binary\r\n\r\n" + OCTETS + b"\r\n--b--\r\n"
)
BINARY = BodyType.BINARY_MIME
CHUNKING = {"8BITMIME", "CHUNKING", "BINARYMIME", "SIZE 10485760"}


def message(*to: str, body: bytes = b"Subject: x\r\n\r\ntext\r\n", body_type: BodyType = BodyType.SEVEN_BIT) -> Transaction:
    recipients = tuple(Recipient(n=n, address=address) for n, address in enumerate(to or ("a@relay.example",)))
    return Transaction("sender@example.org", recipients, body, body_type)


@asynccontextmanager
async def session(host: SmartHost) -> AsyncIterator[SmtpClient]:
    options = ClientOptions(helo_name="relay.example", tls=RouteTls.OFF, command_timeout_s=5.0, data_timeout_s=5.0)
    client = await SmtpClient.connect(NextHop(host=host.host, port=host.port), options)
    try:
        yield client
    finally:
        await client.quit()


def said(outcomes: tuple[RecipientOutcome, ...]) -> list[tuple[str, int, str, str]]:
    return [(o.recipient.address, o.reply.code, o.reply.status, o.stage) for o in outcomes]


def parts_of(text: bytes) -> list[bytes]:
    parsed = email.message_from_bytes(text, policy=email.policy.SMTP)
    return [part.get_payload(decode=True) for part in parsed.walk() if not part.is_multipart()]  # type: ignore[misc]


@pytest.mark.parametrize("pipelining", [set(), {"PIPELINING"}])
@pytest.mark.parametrize("octets", [OCTETS, b"", b"x" * 300_000 + b"\0" * 100_000])
async def test_it_goes_octet_for_octet_to_whom_takes_binary(smart_host: SmartHost, pipelining: set[str], octets: bytes) -> None:
    smart_host.offer = CHUNKING | pipelining
    async with session(smart_host) as client:
        assert said(await client.send(message(body=octets, body_type=BINARY))) == [
            ("a@relay.example", 250, "2.0.0", "end-of-data")
        ]
        assert said(await client.send(message()))[0][1] == 250  # and the session is in step
    binary, text = smart_host.messages
    assert (binary.data, binary.chunked) == (octets, True)
    assert binary.mail_parameters == f"SIZE={len(octets)} BODY=BINARYMIME"
    assert not text.chunked
    assert smart_host.violations == []


@pytest.mark.parametrize("pipelining", [set(), {"PIPELINING"}])
async def test_no_octet_leaves_before_a_recipient_was_taken(smart_host: SmartHost, pipelining: set[str]) -> None:
    smart_host.offer = CHUNKING | pipelining
    smart_host.refuse_rcpt("gone@relay.example")
    async with session(smart_host) as client:
        refused = await client.send(message("gone@relay.example", body=OCTETS, body_type=BINARY))
        assert said(refused) == [("gone@relay.example", 550, "5.1.1", "rcpt")]
        smart_host.reply_to("MAIL", "451 4.3.0 not now", times=1)
        assert said(await client.send(message(body=OCTETS, body_type=BINARY)))[0][1:3] == (451, "4.3.0")
        both = await client.send(message("gone@relay.example", "a@relay.example", body=OCTETS, body_type=BINARY))
        assert [outcome.reply.code for outcome in both] == [550, 250]
    assert [command for command in smart_host.commands if command.startswith("BDAT")] == [f"BDAT {len(OCTETS)} LAST"]
    assert [received.data for received in smart_host.messages] == [OCTETS]


@pytest.mark.parametrize("offer", [{"8BITMIME"}, {"8BITMIME", "BINARYMIME"}, {"8BITMIME", "CHUNKING"}, set()])
async def test_elsewhere_its_parts_become_text(smart_host: SmartHost, offer: set[str]) -> None:
    smart_host.offer = offer
    async with session(smart_host) as client:
        assert said(await client.send(message(body=MIXED, body_type=BINARY))) == [
            ("a@relay.example", 250, "2.0.0", "end-of-data")
        ]
    (received,) = smart_host.messages
    assert parts_of(received.data) == [TEXT, OCTETS]
    assert b": binary" not in received.data
    assert (TEXT in received.data) == ("8BITMIME" in offer)  # what a peer can take stays as it is
    assert received.data.isascii() == ("8BITMIME" not in offer)
    assert not received.chunked
    assert smart_host.violations == []


async def test_what_cannot_be_converted_is_returned(smart_host: SmartHost) -> None:
    signed = MIXED.replace(b"multipart/mixed", b"multipart/signed")
    async with session(smart_host) as client:
        assert said(await client.send(message(body=signed, body_type=BINARY))) == [("a@relay.example", 554, "5.6.1", "mail")]
        assert said(await client.send(message(body=b"Subject: x\r\n\r\ntext", body_type=BINARY)))[0][1] == 250  # it only said so
    assert smart_host.messages[0].data == b"Subject: x\r\n\r\ntext\r\n"


async def test_a_connection_lost_behind_the_last_octet_leaves_its_recipients_in_doubt(smart_host: SmartHost) -> None:
    smart_host.offer = CHUNKING
    smart_host.hang_up(during="END-OF-DATA", times=1)
    async with session(smart_host) as client:
        with pytest.raises(ConnectionLost) as lost:
            await client.send(message(body=OCTETS, body_type=BINARY))
    assert [recipient.address for recipient in lost.value.in_doubt] == ["a@relay.example"]


@given(st.binary(max_size=200), st.booleans(), st.sampled_from([b"text/plain", b"image/png", b"application/octet-stream"]))
def test_any_content_comes_back_as_it_was(content: bytes, eight_bit: bool, kind: bytes) -> None:
    head = b"MIME-Version: 1.0\r\nContent-Type: " + kind + b"\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    text = to_text(head + content, eight_bit=eight_bit)
    assert text is not None
    normalised = text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert has_only_crlf(normalised)
    assert b"\0" not in normalised
    assert not has_long_line(normalised, 1000)
    (found,) = parts_of(normalised)
    assert found == content


@given(st.binary(max_size=300))
def test_any_octets_end_as_text_or_are_left(octets: bytes) -> None:
    for eight_bit in (False, True):
        text = to_text(octets, eight_bit=eight_bit)
        assert text is None or b"\0" not in text
        assert text is None or eight_bit or text.isascii()


def test_what_is_base64_already_stays_as_it_is() -> None:
    head = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    body = head + base64.encodebytes(OCTETS).replace(b"\n", b"\r\n")
    assert to_text(body, eight_bit=True) == body
    assert to_text(head + OCTETS, eight_bit=True) is None  # it does not keep to what it claims
