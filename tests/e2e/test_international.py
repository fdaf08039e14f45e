"""International mail, and mail that asks for TLS all the way, through the whole stack."""

from __future__ import annotations

import quopri
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy

import pytest

from fixtures.relay import Relay
from fixtures.reports import groups_of, parts_of_report
from fixtures.smart_host import DEFAULT_OFFER, ReceivedMessage
from fixtures.stack import queue_id_of

MESSAGE = "From: José <jösé@bücher.example>\r\nTo: 用户@relay.example\r\nSubject: Grüße\r\n\r\nÜber alles.\r\n".encode()
SENDER, SENDER_INSIDE = "jösé@bücher.example", "jösé@xn--bcher-kva.example"


def hand_in(
    relay: Relay, *to: str, sender: str = SENDER, body: bytes = MESSAGE, gate: str = "anon", parameters: str = "SMTPUTF8"
) -> str:
    """The queue id of a message handed in with these parameters at MAIL."""
    with relay.client(gate) as client:
        if gate != "anon":
            client.login(relay.endpoints["demo_user"]["name"], relay.endpoints["demo_user"]["password"])
        client.ehlo()
        client.command_encoding = "utf-8"
        answers = [client.docmd("MAIL", f"FROM:<{sender}> BODY=8BITMIME {parameters}".strip())]
        answers += [client.docmd("RCPT", f"TO:<{each}>") for each in to]
        assert {code for code, _ in answers} == {250}, answers
        return queue_id_of(client.data(body))


@contextmanager
def offering(relay: Relay, *keywords: str) -> Iterator[None]:
    """Inside the block the smart host offers these as well. Its kept connections are gone before and after."""
    relay.smart_host.stop()
    relay.smart_host.host.offer = DEFAULT_OFFER | set(keywords)
    relay.smart_host.start()
    try:
        yield
    finally:
        relay.smart_host.stop()
        relay.smart_host.host.offer = DEFAULT_OFFER
        relay.smart_host.start()


def report_about(relay: Relay, queue_id: str) -> ReceivedMessage:
    """The NDR about a message, which quotes its id."""

    def is_it(mail: ReceivedMessage) -> bool:
        return mail.reverse_path == "" and queue_id.encode() in mail.data

    return relay.wait_for_arrival(is_it)


def test_an_international_message_arrives_as_it_came(relay: Relay) -> None:
    with offering(relay, "SMTPUTF8"):
        queue_id = hand_in(relay, "用户@relay.example", "plain@relay.example")
        assert relay.wait_dispositions(queue_id, "delivered") == {
            "用户@relay.example": "delivered",
            "plain@relay.example": "delivered",
        }
        got = relay.received(queue_id)
    assert (got.reverse_path, got.recipients) == (SENDER_INSIDE, ("用户@relay.example", "plain@relay.example"))
    assert got.mail_parameters.split()[-2:] == ["BODY=8BITMIME", "SMTPUTF8"]
    assert got.data.endswith(b"\r\n" + MESSAGE)
    assert b" with UTF8SMTP\r\n" in got.data
    accepted = relay.wait_event(queue_id, "accepted")["fields"]
    assert (accepted["reverse_path"], accepted["to"]) == (SENDER_INSIDE, "用户@relay.example, plain@relay.example")
    assert relay.smart_host.host.violations == []


def test_without_smtputf8_on_the_way_it_comes_back(relay: Relay) -> None:
    queue_id = hand_in(relay, "用户@relay.example", sender="me@relay.example", body=b"Subject: hi\r\n\r\nhi\r\n")
    assert relay.wait_dispositions(queue_id, "bounced") == {"用户@relay.example": "bounced"}
    ndr = report_about(relay, queue_id)
    assert (ndr.recipients, ndr.data.isascii()) == (("me@relay.example",), True)
    assert "SMTPUTF8" not in ndr.mail_parameters
    (text_type, text), (status_type, status), (original_type, original) = parts_of_report(ndr.data)
    assert (text_type, status_type, original_type) == ("text/plain", "message/global-delivery-status", "message/rfc822")
    message, recipient = groups_of(status)
    assert message["X-Postern-Queue-ID"] == queue_id
    assert recipient["Final-Recipient"] == "utf-8; 用户@relay.example"
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.6.7")
    assert "<用户@relay.example>" in text.decode()
    assert original.endswith(b"Subject: hi\r\n\r\nhi\r\n")
    # the same by Python's own parser, which takes it for a message inside a message
    [encoded] = message_from_bytes(ndr.data).get_payload()[1].get_payload()  # type: ignore[index,union-attr]
    assert "Final-Recipient: utf-8; 用户@relay.example" in quopri.decodestring(encoded.as_bytes()).decode()


def test_what_is_ascii_goes_without_smtputf8(relay: Relay) -> None:
    body = "Subject: hi\r\n\r\nGrüße\r\n".encode()
    queue_id = hand_in(relay, "b@relay.example", "用户@relay.example", sender="me@bücher.example", body=body)
    assert relay.dispositions(queue_id) == {"b@relay.example": "delivered", "用户@relay.example": "bounced"}
    got = relay.received(queue_id)
    assert (got.reverse_path, got.recipients) == ("me@xn--bcher-kva.example", ("b@relay.example",))
    in_its_header = hand_in(relay, "b@relay.example", sender="me@relay.example")
    assert relay.wait_dispositions(in_its_header, "bounced") == {"b@relay.example": "bounced"}
    _, (_, status), (original_type, original) = parts_of_report(report_about(relay, in_its_header).data)
    assert groups_of(status)[1]["Status"] == "5.6.9"
    assert (original_type, original.endswith(MESSAGE)) == ("message/global", True)


def test_a_report_to_an_international_sender_goes_with_smtputf8(relay: Relay) -> None:
    with offering(relay, "SMTPUTF8"), relay.recipient_refused("用户@relay.example"):
        queue_id = hand_in(relay, "用户@relay.example")
        assert relay.wait_dispositions(queue_id, "bounced") == {"用户@relay.example": "bounced"}
        ndr = report_about(relay, queue_id)
    assert ndr.recipients == (SENDER_INSIDE,)
    assert ndr.mail_parameters.split()[-1] == "SMTPUTF8"
    assert message_from_bytes(ndr.data, policy=policy.SMTPUTF8)["To"] == SENDER_INSIDE
    _, (status_type, status), (original_type, original) = parts_of_report(ndr.data)
    assert (status_type, original_type) == ("message/global-delivery-status", "message/global")
    assert groups_of(status)[1]["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert original.endswith(MESSAGE)


def test_a_sender_who_cannot_be_told_leaves_badmail(relay: Relay) -> None:
    queue_id = hand_in(relay, "b@relay.example")
    assert relay.wait_dispositions(queue_id, "bounced") == {"b@relay.example": "bounced"}
    [end] = relay.trace(queue_id)["dispositions"]
    assert relay.dispositions(end["successor_id"]) == {SENDER_INSIDE: "badmail"}
    row = next(row for row in relay.api.get("/badmail").json()["rows"] if row["queue_id"] == end["successor_id"])
    assert row["recipients"] == [SENDER_INSIDE]
    relay.api.delete(f"/badmail/{row['job_id']}").raise_for_status()


def test_it_waits_in_the_queue_under_its_own_name(relay: Relay) -> None:
    with offering(relay, "SMTPUTF8"), relay.schedule(intervals_s=[1], delay_notice_s=None, expiry_s=600):
        with relay.recipient_deferred("用户@relay.example"):
            queue_id = hand_in(relay, "用户@relay.example")
            row = relay.wait_queued(queue_id)
            assert (row["reverse_path"], row["recipients"]) == (SENDER_INSIDE, ["用户@relay.example"])
        assert relay.wait_dispositions(queue_id, "delivered") == {"用户@relay.example": "delivered"}
        assert relay.received(queue_id).mail_parameters.split()[-1] == "SMTPUTF8"


@pytest.mark.parametrize("pattern", ["jösé@bücher.example", "jo\u0308se\u0301@xn--bcher-kva.example", "bücher.example"])
def test_sender_rules_know_international_senders(relay: Relay, pattern: str) -> None:
    with relay.rule({"name": "sender", "condition": {"type": "sender", "patterns": [pattern]}, "action": "hold"}):
        caught = hand_in(relay, "用户@relay.example", body=b"Subject: x\r\n\r\nx\r\n")
        assert relay.dispositions(caught) == {"用户@relay.example": "held"}
    held = relay.api.get(f"/quarantine/{caught}").json()
    assert held["envelope"]["reverse_path"] == SENDER_INSIDE
    relay.api.delete(f"/quarantine/{caught}").raise_for_status()


@pytest.fixture(scope="module")
def tls_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A stack that trusts its smart host's certificate."""
    folder = tmp_path_factory.mktemp("tls-relay")
    relay = Relay(folder / "var", environment={"SSL_CERT_FILE": str(folder / "ca.pem")})
    relay.smart_host.start()
    (folder / "ca.pem").write_bytes(relay.smart_host.host.certificate)
    relay.smart_host.stop()
    with relay:
        yield relay


def test_requiretls_goes_over_verified_tls_or_comes_back(tls_relay: Relay) -> None:
    relay = tls_relay
    for gate in ("auth_tls",):
        with offering(relay, "STARTTLS", "REQUIRETLS"):
            queue_id = hand_in(relay, "b@relay.example", sender="me@relay.example", gate=gate, parameters="REQUIRETLS")
            assert relay.wait_dispositions(queue_id, "delivered") == {"b@relay.example": "delivered"}
            got = relay.received(queue_id)
            assert (got.tls, got.mail_parameters.split()[-1]) == ("TLSv1.3", "REQUIRETLS")
        for offer, status in (((), "5.7.10"), (("STARTTLS",), "5.7.30")):
            with offering(relay, *offer):
                queue_id = hand_in(
                    relay, "b@relay.example", sender="me@relay.example", gate=gate, parameters="REQUIRETLS RET=FULL"
                )
                assert relay.wait_dispositions(queue_id, "bounced") == {"b@relay.example": "bounced"}
                ndr = report_about(relay, queue_id)
            assert "REQUIRETLS" not in ndr.mail_parameters
            _, (_, groups), (kind, header) = parts_of_report(ndr.data)
            assert groups_of(groups)[1]["Status"] == status
            assert kind in ("text/rfc822-headers", "message/global-headers")
            assert b"Subject:" in header
            assert b"alles" not in ndr.data
    assert relay.smart_host.host.violations == []
