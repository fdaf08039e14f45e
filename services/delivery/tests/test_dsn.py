"""Notices, read back by the standard library's parser."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.reports import groups_of, parts_of_report
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import new_queue_id
from postern_delivery.dsn import Action, Notice, build, xtext_decoded
from postern_delivery.outcome import Fate, RecipientResult

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ORIGINAL = b"Message-ID: <m1@example.org>\r\nSubject: hello\r\n\r\nhello\r\n.\r\n"


def a_result(address: str = "gone@relay.example", **fields: Any) -> RecipientResult:
    notify, orcpt = fields.pop("notify", ""), fields.pop("orcpt", "")
    defaults: dict[str, Any] = {
        "fate": Fate.BOUNCE,
        "at": AT - timedelta(minutes=1),
        "code": 550,
        "status": "5.1.1",
        "text": "no such user",
        "next_hop": "mail.relay.example:25",
    }
    recipient = Recipient(n=0, address=address, notify=notify, orcpt=orcpt)
    return RecipientResult(recipient=recipient, **(defaults | fields))


def a_notice(
    *results: RecipientResult, action: Action = Action.FAILED, envelope: dict[str, Any] | None = None, **fields: Any
) -> Notice:
    queue_id = new_queue_id()
    about: dict[str, Any] = {
        "id": queue_id,
        "gate": Gate.ANON,
        "reverse_path": "me@sender.example",
        "recipients": (Recipient(n=0, address="gone@relay.example"),),
        "size_bytes": 10,
        "accepted_at": AT - timedelta(hours=1),
        "client": Client(address="192.0.2.1"),
    }
    defaults: dict[str, Any] = {
        "action": action,
        "queue_id": new_queue_id(),
        "hostname": "relay.example.net",
        "postmaster": "postmaster@relay.example.net",
        "to": "me@sender.example",
        "at": AT,
        "envelope": Envelope(**(about | (envelope or {}))),
        "results": results or (a_result(),),
    }
    return Notice(**(defaults | fields))


def parts_of(content: bytes) -> tuple[Message, str, list[Message], Message | None]:
    """The whole, its text, the groups of its delivery-status, and what it returns; the form is checked on the way."""
    assert content.isascii()
    assert b"\0" not in content
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
    assert max(len(line) for line in content.split(b"\r\n")) <= 998
    whole = message_from_bytes(content, policy=policy.compat32)
    assert whole.defects == []
    assert whole.get_content_type() == "multipart/report"
    assert whole.get_param("report-type") == "delivery-status"
    text, status, *rest = whole.get_payload()
    assert status.get_content_type() == "message/delivery-status"
    assert len(rest) <= 1
    return whole, text.get_payload(), status.get_payload(), rest[0] if rest else None


def test_an_ndr() -> None:
    notice = a_notice(envelope={"envid": "QQ314159+2B"})
    whole, text, (message, recipient), returned = parts_of(build(notice, ORIGINAL))
    assert whole["From"] == "Mail Delivery System <postmaster@relay.example.net>"
    assert whole["To"] == "<me@sender.example>"
    assert whole["Auto-Submitted"] == "auto-replied"
    assert whole["Message-ID"] == f"<{notice.queue_id}@relay.example.net>"
    assert whole["References"] == "<m1@example.org>"
    assert parsedate_to_datetime(whole["Date"]) == AT
    assert message["Reporting-MTA"] == "dns; relay.example.net"
    assert message["Original-Envelope-Id"] == "QQ314159+"
    assert parsedate_to_datetime(message["Arrival-Date"]) == AT - timedelta(hours=1)
    assert recipient["Final-Recipient"] == "rfc822; gone@relay.example"
    assert recipient["Action"] == "failed"
    assert recipient["Status"] == "5.1.1"
    assert recipient["Remote-MTA"] == "dns; mail.relay.example"
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert parsedate_to_datetime(recipient["Last-Attempt-Date"]) == AT - timedelta(minutes=1)
    assert recipient["Original-Recipient"] is None
    assert "<gone@relay.example>" in text
    assert "no such user" in text
    assert notice.envelope.id in text
    assert returned is not None
    assert returned.get_content_type() == "message/rfc822"
    assert returned.get_payload(0)["Subject"] == "hello"
    assert ORIGINAL in build(notice, ORIGINAL)


def test_recipients_with_different_fates_have_a_group_each() -> None:
    results = (
        a_result("a@relay.example"),
        a_result("b@relay.example", fate=Fate.RETRY, code=0, status="", text="connection timed out", next_hop="h:25"),
        a_result("c@relay.example", fate=Fate.RETRY, code=451, status="4.2.1", text="busy", next_hop="192.0.2.7:25"),
        a_result("d@relay.example", code=554, status="", text="no", next_hop="[2001:db8::1]:25"),
    )
    _, _, (_, a, b, c, d), _ = parts_of(build(a_notice(*results), ORIGINAL))
    assert [group["Status"] for group in (a, b, c, d)] == ["5.1.1", "5.4.7", "5.4.7", "5.0.0"]
    assert b["Diagnostic-Code"] == "x-postern; connection timed out"
    assert b["Remote-MTA"] is None
    assert c["Remote-MTA"] == "dns; [192.0.2.7]"
    assert d["Remote-MTA"] == "dns; [IPv6:2001:db8::1]"


def test_a_delay_notice() -> None:
    until = AT + timedelta(days=1)
    result = a_result(fate=Fate.RETRY, code=0, status="", text="connection refused")
    notice = a_notice(result, action=Action.DELAYED, retry_until=until, envelope={"ret": "FULL"})
    whole, text, (_, recipient), returned = parts_of(build(notice, ORIGINAL))
    assert "Delayed" in whole["Subject"]
    assert recipient["Action"] == "delayed"
    assert recipient["Status"].startswith("4.")
    assert parsedate_to_datetime(recipient["Will-Retry-Until"]) == until
    assert "need not send it again" in text
    assert returned is not None
    assert returned.get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize(
    ("ret", "limit", "body", "kind"),
    [
        ("", 1000, ORIGINAL, "message/rfc822"),
        ("FULL", 1000, ORIGINAL, "message/rfc822"),
        ("HDRS", 1000, ORIGINAL, "text/rfc822-headers"),
        ("FULL", 10, ORIGINAL, "text/rfc822-headers"),
        ("FULL", 1000, ORIGINAL + b"\xfc\r\n", "text/rfc822-headers"),
        ("FULL", 10_000, ORIGINAL + b"x" * 999 + b"\r\n", "text/rfc822-headers"),
        ("FULL", 1000, b"Subject: only a header\r\n", "message/rfc822"),
    ],
)
def test_what_is_returned(ret: str, limit: int, body: bytes, kind: str) -> None:
    _, _, _, returned = parts_of(build(a_notice(envelope={"ret": ret}, full_limit_bytes=limit), body))
    assert returned is not None
    assert returned.get_content_type() == kind


def test_a_header_that_is_not_ascii_comes_back_encoded() -> None:
    body = "Subject: Grüße\r\nX-Long: ".encode() + b"y" * 2000 + b"\r\n\r\nbody\r\n"
    _, _, _, returned = parts_of(build(a_notice(), body))
    assert returned is not None
    assert returned["Content-Transfer-Encoding"] == "quoted-printable"
    assert returned.get_payload(decode=True) == body[: body.index(b"\r\n\r\n") + 2]


def test_a_lost_message_is_reported_without_it() -> None:
    *_, returned = parts_of(build(a_notice(), b""))
    assert returned is None


def test_orcpt_comes_back_decoded_and_cannot_add_a_field() -> None:
    result = a_result(orcpt="rfc822;Bob+2BCarol@x.example+0D+0AAction:+20relayed")
    _, _, (_, recipient), _ = parts_of(build(a_notice(result), ORIGINAL))
    assert recipient["Original-Recipient"] == "rfc822; Bob+Carol@x.example??Action: relayed"
    assert recipient.get_all("Action") == ["failed"]


@given(st.text(), st.text(), st.text(), st.binary(max_size=300))
@settings(max_examples=60)
def test_hostile_replies_and_addresses_never_break_the_form(address: str, reply: str, envid: str, body: bytes) -> None:
    result = a_result(f"{address}@relay.example", text=reply, orcpt=f"rfc822;{envid}")
    _, _, groups, _ = parts_of_status_only(build(a_notice(result, envelope={"envid": envid}), body))
    assert len(groups) == 2
    assert groups[1].get_all("Action") == ["failed"]


def parts_of_status_only(content: bytes) -> tuple[Message, str, list[Message], Message | None]:
    """As `parts_of`, for originals that are no messages: only what we write ourselves must be in form."""
    assert content.isascii()
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
    _, (_, status), *_ = parts_of_report(content)
    return message_from_bytes(content), "", groups_of(status), None


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126)))
def test_xtext_round_trip(text: str) -> None:
    encoded = "".join(c if c not in "+=" else f"+{ord(c):02X}" for c in text)
    assert xtext_decoded(encoded) == text
