"""Mail in at the two gates of the real stack, and what they refuse."""

from __future__ import annotations

import smtplib
import socket

import pytest

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.stack import queue_id_of


def test_clean_mail_through_the_anonymous_gate_arrives_byte_for_byte(relay: Relay) -> None:
    message = a_message(body="Clean.\r\n.\r\n..leading dots\r\nend")
    queue_id = relay.send(message, to=["a@relay.example"])
    arrived = relay.received(queue_id)
    assert arrived.recipients == ("a@relay.example",)
    # nothing but our trace field stands in front of what was sent
    assert arrived.data.endswith(message)
    assert arrived.data[: -len(message)].startswith(b"Received: from ")
    assert relay.dispositions(queue_id) == {"a@relay.example": "delivered"}


def test_clean_mail_through_the_authenticated_gate_goes_to_any_domain(relay: Relay) -> None:
    for gate in ("auth_starttls", "auth_tls"):
        queue_id = relay.send(a_message(), to=["somebody@elsewhere.example"], gate=gate)
        assert relay.received(queue_id).recipients == ("somebody@elsewhere.example",)
        assert relay.dispositions(queue_id) == {"somebody@elsewhere.example": "delivered"}


@pytest.mark.parametrize(
    "recipient",
    [
        "a@elsewhere.example",
        "a%elsewhere.example@relay.example",
        "elsewhere.example!a@relay.example",
        "@relay.example:a@elsewhere.example",
        '"a@elsewhere.example"@relay.example',
        "a@[127.0.0.1]",
        "a@relay.example.elsewhere.example",
        "a@relay.example@elsewhere.example",
        "a",
    ],
)
def test_the_anonymous_gate_never_relays(relay: Relay, recipient: str) -> None:
    with relay.client("anon") as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:<x@sender.example>")
        code, text = client.docmd("RCPT", f"TO:<{recipient}>")
    assert 500 <= code < 600, (code, text)


def test_a_wildcard_covers_subdomains_and_nothing_else(relay: Relay) -> None:
    with relay.client("anon") as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:<x@sender.example>")
        assert client.docmd("RCPT", "TO:<a@deep.sub.wild.example>")[0] == 250
        assert client.docmd("RCPT", "TO:<a@WILD.example>")[0] == 550


def test_the_authenticated_gate_wants_tls_then_a_password(relay: Relay) -> None:
    with relay.client("auth_starttls") as client:
        client.ehlo()
        assert client.docmd("MAIL", "FROM:<x@sender.example>")[0] == 530
        assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] in (530, 538)
        client.starttls(context=relay.tls_context)
        client.ehlo()
        assert client.docmd("MAIL", "FROM:<x@sender.example>")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login(relay.endpoints["demo_user"]["name"], "wrong")
        assert refused.value.smtp_code == 535


def test_a_client_that_does_not_start_tls_is_dropped(relay: Relay) -> None:
    host, port = relay.address("auth_starttls")
    with socket.create_connection((host, port), timeout=30) as connection:
        answers = connection.makefile("rb")
        assert answers.readline().startswith(b"220")
        lines = []
        for _ in range(50):
            try:
                connection.sendall(b"NOOP\r\n")
            except ConnectionError:
                break
            line = answers.readline()
            if not line:
                break
            lines.append(line)
            if line.startswith(b"421"):
                break
    assert lines[-1].startswith(b"421"), lines


def test_too_large_is_refused_at_mail_and_again_at_the_end_of_data(relay: Relay) -> None:
    with relay.limits("anon", max_message_bytes=10_000):
        with relay.client("anon") as client:
            client.ehlo()
            assert client.docmd("MAIL", "FROM:<x@sender.example> SIZE=10001")[:1] == (552,)
        with relay.client("anon") as client:
            client.helo()
            client.docmd("MAIL", "FROM:<x@sender.example>")
            client.docmd("RCPT", "TO:<a@relay.example>")
            code, text = client.data(a_message(body="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 400))
            assert (code, text[:5]) == (552, b"5.3.4")
            # the dialogue is still in step
            assert client.docmd("NOOP")[0] == 250


def test_recipient_101_waits_for_a_second_transaction_and_none_is_lost(relay: Relay) -> None:
    recipients = [f"r{n}@relay.example" for n in range(105)]
    with relay.client("anon") as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:<x@sender.example>")
        codes = [client.docmd("RCPT", f"TO:<{recipient}>") for recipient in recipients]
        assert [code for code, _ in codes] == [250] * 100 + [452] * 5
        assert all(text.startswith(b"4.5.3") for _, text in codes[100:])
        first = queue_id_of(client.data(a_message()))
        client.docmd("MAIL", "FROM:<x@sender.example>")
        for recipient in recipients[100:]:
            assert client.docmd("RCPT", f"TO:<{recipient}>")[0] == 250
        second = queue_id_of(client.data(a_message()))
    assert set(relay.dispositions(first)) | set(relay.dispositions(second)) == set(recipients)


def test_the_message_after_the_last_allowed_one_gets_421(relay: Relay) -> None:
    with relay.limits("anon", max_messages=2), relay.client("anon") as client:
        client.ehlo()
        for _ in range(2):
            client.docmd("MAIL", "FROM:<x@sender.example>")
            client.docmd("RCPT", "TO:<a@relay.example>")
            assert client.data(a_message())[0] == 250
        code, text = client.docmd("MAIL", "FROM:<x@sender.example>")
        assert (code, text[:5]) == (421, b"4.7.0")


def test_limits_can_be_switched_off(relay: Relay) -> None:
    off = {"max_messages": None, "max_recipients": None, "max_message_bytes": None, "max_session_bytes": None}
    with relay.limits("anon", **off), relay.client("anon") as client:
        client.ehlo()
        for _ in range(25):
            client.docmd("MAIL", "FROM:<x@sender.example>")
            client.docmd("RCPT", "TO:<a@relay.example>")
            assert client.data(a_message())[0] == 250
        client.docmd("MAIL", "FROM:<x@sender.example>")
        assert {client.docmd("RCPT", f"TO:<r{n}@relay.example>")[0] for n in range(150)} == {250}


def test_a_session_that_sends_too_much_is_ended(relay: Relay) -> None:
    big = a_message(body=("y" * 70 + "\r\n") * 100)
    with relay.limits("anon", max_message_bytes=10_000, max_session_bytes=20_000), relay.client("anon") as client:
        client.ehlo()
        codes = []
        for _ in range(4):
            try:
                codes.append(client.docmd("MAIL", f"FROM:<x@sender.example> SIZE={len(big)}")[0])
                if codes[-1] != 250:
                    break
                client.docmd("RCPT", "TO:<a@relay.example>")
                codes.append(client.data(big)[0])
            except smtplib.SMTPServerDisconnected:
                break
    assert codes.count(250) >= 2
    assert codes[-1] in (421, 452), codes


@pytest.mark.parametrize(
    "wire", [b"one\r\n.\nMAIL FROM:<evil@x.example>\r\n", b"one\n.\r\ntwo\r\n", b"one\rtwo\r\n", b"a\r\n\0\r\n"]
)
def test_bare_line_ends_and_nul_never_end_data_nor_pass(relay: Relay, wire: bytes) -> None:
    before = relay.smart_host_count()
    with relay.client("anon") as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:<x@sender.example>")
        client.docmd("RCPT", "TO:<a@relay.example>")
        assert client.docmd("DATA")[0] == 354
        client.send(b"Subject: smuggled\r\n\r\n" + wire + b"\r\n.\r\n")
        code, _ = client.getreply()
        assert 500 <= code < 600
        assert client.docmd("NOOP")[0] == 250
    assert relay.smart_host_count() == before


@pytest.mark.parametrize(
    "line",
    [b"FROB x", b"MAIL FROM:<\xff\xfe@x.example>", b"RCPT", b"MAIL FROM:<a b@c.example>", b"X" * 5000, b"\0\0\0", b"DATA now"],
)
def test_nonsense_gets_a_clear_reply_and_no_traceback(relay: Relay, line: bytes) -> None:
    with relay.client("anon") as client:
        client.ehlo()
        client.send(line + b"\r\n")
        code, text = client.getreply()
        assert 500 <= code < 600
        assert b"Traceback" not in text
        assert b"Error:" not in text
        assert client.docmd("NOOP")[0] == 250


def test_what_is_pipelined_behind_starttls_is_discarded(relay: Relay) -> None:
    host, port = relay.address("auth_starttls")
    with socket.create_connection((host, port), timeout=30) as plain:
        plain.recv(1024)
        plain.sendall(b"EHLO x.example\r\n")
        plain.recv(4096)
        plain.sendall(b"STARTTLS\r\nNOOP injected\r\nVRFY injected\r\n")
        assert plain.recv(1024).startswith(b"220")
        with relay.tls_context.wrap_socket(plain, server_hostname="localhost") as secured:
            secured.settimeout(30)
            secured.sendall(b"QUIT\r\n")
            # the first thing said inside TLS answers QUIT, not what was injected
            assert secured.recv(1024).startswith(b"221")
