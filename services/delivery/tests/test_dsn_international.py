"""Notices about international mail (RFC 6533) and about mail with REQUIRETLS (RFC 8689 section 5)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.reports import groups_of, parts_of_report
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import new_queue_id
from postern_delivery.dsn import Action, Notice, build
from postern_delivery.outcome import Fate, RecipientResult

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ORIGINAL = "Message-ID: <m1@example.org>\r\nSubject: Grüße an 用户\r\n\r\nÜber alles.\r\n".encode()
PLAIN = b"Message-ID: <m1@example.org>\r\nSubject: hello\r\n\r\nhello\r\n"
ASCII, UTF8 = "me@sender.example", "jösé@xn--bcher-kva.example"


def a_notice(to: str = ASCII, *addresses: str, orcpt: str = "", text: str = "no such user", **envelope: Any) -> Notice:
    recipients = tuple(Recipient(n=n, address=each, orcpt=orcpt) for n, each in enumerate(addresses or ("用户@relay.example",)))
    about: dict[str, Any] = {
        "id": new_queue_id(),
        "gate": Gate.ANON,
        "reverse_path": to,
        "recipients": recipients,
        "size_bytes": 10,
        "accepted_at": AT,
        "client": Client(address="192.0.2.1"),
        "smtputf8": True,
    }
    results = tuple(
        RecipientResult(recipient=each, fate=Fate.BOUNCE, at=AT, code=550, status="5.1.1", text=text, next_hop="h.example:25")
        for each in recipients
    )
    return Notice(
        action=Action.FAILED,
        queue_id=new_queue_id(),
        hostname="relay.example.net",
        postmaster="postmaster@relay.example.net",
        to=to,
        at=AT,
        envelope=Envelope(**(about | envelope)),
        results=results,
    )


@pytest.mark.parametrize("to", [ASCII, UTF8])
def test_a_report_about_international_mail_holds_what_it_is_about(to: str) -> None:
    content = build(
        a_notice(to, "用户@relay.example", "b@relay.example", orcpt="utf-8;ä\\x{2B}@x", text="unbekannt: 用户"), ORIGINAL
    )
    assert content.isascii() == to.isascii()  # only he who needs SMTPUTF8 anyway gets it
    (text_type, text), (status_type, status), (original_type, original) = parts_of_report(content)
    assert (text_type, status_type, original_type) == ("text/plain", "message/global-delivery-status", "message/global")
    assert "<用户@relay.example>:" in text.decode()
    assert "unbekannt: 用户" in text.decode()
    assert original == ORIGINAL
    message, first, second = groups_of(status)
    assert message["Reporting-MTA"] == "dns; relay.example.net"
    assert first["Final-Recipient"] == "utf-8; 用户@relay.example"
    assert first["Original-Recipient"] == "utf-8; ä+@x"
    assert first["Diagnostic-Code"] == "smtp; 550 5.1.1 unbekannt: 用户"
    assert (first["Action"], first["Status"]) == ("failed", "5.1.1")
    assert second["Final-Recipient"] == "rfc822; b@relay.example"
    whole = message_from_bytes(content, policy=policy.SMTPUTF8)
    assert whole["To"] == to
    assert whole["In-Reply-To"] == "<m1@example.org>"


def test_what_holds_no_utf8_keeps_the_types_that_everybody_knows() -> None:
    kinds = [kind for kind, _ in parts_of_report(build(a_notice(ASCII, "b@relay.example"), PLAIN))]
    assert kinds == ["text/plain", "message/delivery-status", "message/rfc822"]
    content = build(a_notice(ASCII, "b@relay.example", orcpt="utf-8;\\x{E4}@x", smtputf8=False), PLAIN)
    kinds, [_, recipient] = [kind for kind, _ in parts_of_report(content)], groups_of(parts_of_report(content)[1][1])
    assert kinds == ["text/plain", "message/delivery-status", "message/rfc822"]
    assert recipient["Original-Recipient"] == "utf-8; \\x{E4}@x"


@pytest.mark.parametrize(
    ("envelope", "body", "kind"),
    [
        ({}, ORIGINAL, "message/global"),
        ({"ret": "HDRS"}, ORIGINAL, "message/global-headers"),
        ({"ret": "HDRS"}, PLAIN, "text/rfc822-headers"),
        ({}, ORIGINAL + b"x" * 60_000, "message/global-headers"),
        ({}, ORIGINAL + b"x" * 999 + b"\r\n", "message/global-headers"),
        ({}, PLAIN + "ä\r\n".encode(), "message/global"),
        ({}, b"Subject: Gr\xfc\r\n\r\n", "text/rfc822-headers"),  # no UTF-8, whatever MAIL said
        ({"requiretls": True}, ORIGINAL, "message/global-headers"),
        ({"requiretls": True, "ret": "FULL", "smtputf8": False}, PLAIN, "text/rfc822-headers"),
    ],
)
@pytest.mark.parametrize("to", [ASCII, UTF8])
def test_what_is_returned(envelope: dict[str, Any], body: bytes, kind: str, to: str) -> None:
    _, _, (found, returned) = parts_of_report(build(a_notice(to, **envelope), body))
    assert found == kind
    header = body[: body.index(b"\r\n\r\n") + 2]
    assert returned == (body if kind in ("message/rfc822", "message/global") else header)


def test_a_copy_for_another_is_in_the_form_that_he_can_have() -> None:
    assert build(replace(a_notice(UTF8), to="copies@relay.example"), ORIGINAL).isascii()


@given(st.text(max_size=40), st.text(max_size=40), st.booleans())
def test_nothing_from_outside_adds_a_field_or_ends_a_part(address: str, text: str, utf8: bool) -> None:
    notice = a_notice(UTF8 if utf8 else ASCII, f"x{address}@relay.example".encode(errors="replace").decode(), text=text)
    content = build(notice, ORIGINAL)
    _, (_, status), _ = parts_of_report(content)
    _, recipient = groups_of(status)
    assert recipient.get_all("Action") == ["failed"]
    assert len(recipient.keys()) == 6
    assert all(c.isprintable() or c in "\r\n" for c in status.decode())
