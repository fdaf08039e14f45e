"""The Received: field, which nothing that a client says can break out of."""

from __future__ import annotations

import email
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from hypothesis import given
from hypothesis import strategies as st

from postern_core.envelope import Client, HostCheck
from postern_core.ids import accepted_at, new_queue_id
from postern_smtp.trace import blank_before, count_hops, received_field

NOW = datetime(2026, 11, 24, 8, 9, 10, tzinfo=UTC)


def field(client: Client, *, extended: bool = True, only_recipient: str = "") -> str:
    return received_field(
        client=client, extended=extended, hostname="mx.example", queue_id=new_queue_id(), at=NOW, only_recipient=only_recipient
    ).decode("ascii")


def test_it_says_who_handed_what_to_whom() -> None:
    queue_id = new_queue_id()
    client = Client(address="192.0.2.1", helo="client.example", tls="TLSv1.3 TLS_AES_256_GCM_SHA384", user="u")
    text = received_field(
        client=client,
        extended=True,
        hostname="mx.example",
        queue_id=queue_id,
        at=accepted_at(queue_id),
        only_recipient="a@b.example",
    ).decode("ascii")
    assert text.startswith("Received: from client.example ([192.0.2.1])\r\n\tby mx.example (Postern) with ESMTPSA (TLSv1.3 TLS")
    value = email.message_from_string(text + "\r\n")["Received"]
    assert f"id {queue_id}" in value
    assert "for <a@b.example>;" in value
    assert abs(parsedate_to_datetime(value.rpartition(";")[2].strip()) - accepted_at(queue_id)).total_seconds() < 1


def test_each_message_has_its_own_second() -> None:
    client = Client(address="192.0.2.1", helo="client.example")
    for at in (NOW, NOW.replace(microsecond=999_999), NOW.replace(second=11), NOW.replace(minute=10), NOW):
        text = received_field(client=client, extended=True, hostname="mx.example", queue_id=new_queue_id(), at=at).decode("ascii")
        assert parsedate_to_datetime(text.rpartition(";")[2].strip()) == at.replace(microsecond=0)


def test_protocol_names_follow_rfc_3848() -> None:
    plain = Client(address="192.0.2.1", helo="c")
    assert " with SMTP\r\n" in field(plain, extended=False)
    assert " with ESMTP\r\n" in field(plain)
    assert " with ESMTPS (" in field(Client(address="192.0.2.1", helo="c", tls="TLSv1.2 X"))


def test_with_smtputf8_protocol_names_follow_rfc_6531() -> None:
    def protocol(**client: str) -> str:
        text = received_field(
            client=Client(address="192.0.2.1", helo="c", **client),
            extended=True,
            utf8=True,
            hostname="mx.example",
            queue_id=new_queue_id(),
            at=NOW,
            only_recipient="jösé@b.example",
        ).decode("ascii")
        assert "for <" not in text  # the field by itself keeps no message from a server without SMTPUTF8
        return text.partition(" with ")[2].split()[0]

    assert protocol() == "UTF8SMTP"
    assert protocol(tls="TLSv1.3 X") == "UTF8SMTPS"
    assert protocol(user="u") == "UTF8SMTPA"
    assert protocol(tls="TLSv1.3 X", user="u") == "UTF8SMTPSA"


def test_addresses_are_literals() -> None:
    assert "([192.0.2.1])" in field(Client(address="192.0.2.1", helo="c"))
    assert "([IPv6:2001:db8::1])" in field(Client(address="2001:db8::1", helo="c"))


@given(st.text(max_size=300), st.text(max_size=60))
def test_no_client_breaks_out_of_the_field(helo: str, tls: str) -> None:
    text = field(Client(address="192.0.2.1", helo=helo, tls=tls))
    assert len(text) < 700
    assert text.endswith("\r\n")
    assert re.fullmatch(r"Received: [ -~]+(\r\n\t[ -~]+)*\r\n", text)
    assert text.count(";") == 1


def test_hops_are_counted_in_the_header_only() -> None:
    message = b"Received: a\r\nRECEIVED : b\r\nX-Received: no\r\nreceived:\r\n\tfolded received: no\r\n\r\nReceived: body\r\n"
    assert count_hops(message) == 3
    assert count_hops(b"\r\nReceived: body\r\n") == 0
    assert count_hops(b"Received: a\r\nReceived: b\r\n") == 2
    assert count_hops(b"") == 0


def test_the_text_of_a_message_never_continues_the_field() -> None:
    ours = field(Client(address="192.0.2.1", helo="c")).encode()
    for start in (b" by trusted.example", b"\tby trusted.example"):
        message = start + b"\r\nSubject: x\r\n"
        parsed = email.message_from_bytes(ours + blank_before(message) + message)
        assert "trusted" not in parsed["Received"]
        assert "trusted" in parsed.get_payload()
    assert blank_before(b"Subject: x\r\n") == blank_before(b"") == blank_before(b"\r\n text\r\n") == b""


@given(st.text(max_size=300), st.text(max_size=300), st.sampled_from([None, *HostCheck]))
def test_no_name_out_of_dns_breaks_out_of_the_field(helo: str, host: str, check: HostCheck | None) -> None:
    text = field(Client(address="192.0.2.1", helo=helo, host=host, host_check=check))
    assert re.fullmatch(r"Received: [ -~]+(\r\n\t[ -~]+)*\r\n", text)
    assert text.count(";") == 1
    assert max(map(len, text.split("\r\n"))) < 998  # RFC 5322 section 2.1.1


def test_the_name_that_dns_confirms_stands_beside_the_address() -> None:
    named = {"address": "192.0.2.1", "host": "mail.example.com", "host_check": HostCheck.VERIFIED}
    assert "from client.example (mail.example.com [192.0.2.1])\r\n" in field(Client(helo="client.example", **named))
    assert "from [192.0.2.1] (mail.example.com [192.0.2.1]) (helo=?x?)\r\n" in field(Client(helo="(x)", **named))
    for check, note in ((HostCheck.UNVERIFIED, "unverified"), (HostCheck.FAILED, "RDNS failed")):
        assert f"from c ([192.0.2.1]) ({note})\r\n" in field(Client(address="192.0.2.1", helo="c", host_check=check))
