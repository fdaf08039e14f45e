"""Writes delivery status notifications: NDRs (action failed), delay notices (delayed), notices of relaying (relayed). Pure.

A multipart/report of three parts: text that a person understands, the machine-readable message/delivery-status, and the original message
or its header. Everything is 7-bit with CRLF line ends and short lines, whatever the original holds; an 8-bit message is returned as its header only.
About international mail the parts are those of RFC 6533 where they hold UTF-8: encoded, so that the notice is 7-bit all the same, unless it goes to an
address that is not ASCII, and so with SMTPUTF8.
Standards: RFC 3464 (delivery-status), RFC 6522 (multipart/report), RFC 3461 section 4 (ENVID, ORCPT, RET), RFC 6533 (international reports),
RFC 8689 section 5 (REQUIRETLS), RFC 3834 section 5 (Auto-Submitted), RFC 5322.
"""

from __future__ import annotations

import enum
import re
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from postern_core.envelope import Envelope, Recipient
from postern_core.ids import QueueId
from postern_core.mail_text import ascii_line, field, line, part
from postern_delivery.dsn_original import header_of, original_part
from postern_delivery.outcome import RecipientResult, Results
from postern_smtp.utf8_address import from_unitext, from_xtext, to_seven_bit

_MESSAGE_ID: Final = re.compile(rb"^message-id:[ \t]*(?:\r\n[ \t]+)?(<[!-;=?-~]{1,250}>)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class Action(enum.StrEnum):
    """The Action field (RFC 3464 section 2.3.3), as far as we report it."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"  # to a server that sends no reports: nothing more will be heard


_SUBJECTS: Final = {
    Action.FAILED: "Undelivered mail returned to sender",
    Action.DELAYED: "Delayed mail: still trying",
    Action.RELAYED: "Relayed mail: handed on without a delivery report",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is to be told, and about which message."""

    action: Action
    queue_id: QueueId  # of the notice itself
    hostname: str  # Reporting-MTA
    postmaster: str  # From:
    to: str
    at: datetime
    envelope: Envelope  # of the message that this is about
    results: Results  # the recipients that this is about, at least one
    retry_until: datetime | None = None  # for delays
    full_limit_bytes: int = 50_000  # larger messages are returned as their header

    @property
    def utf8(self) -> bool:
        """Whether it may hold UTF-8: it is about international mail."""
        addresses = (self.to, self.envelope.reverse_path, *(result.recipient.address for result in self.results))
        return self.envelope.smtputf8 or not all(address.isascii() for address in addresses)

    @property
    def seven_bit(self) -> bool:
        """Whether it must go without SMTPUTF8."""
        return self.to.isascii()


def build(notice: Notice, body: bytes | memoryview) -> bytes:
    """The notice as it goes on the wire, before dot-stuffing. `body` is the message that it is about; empty when it is lost."""
    original = bytes(body)
    boundary = f"=_{notice.queue_id}"
    parts = [_text_part(notice), _status_part(notice)]
    if original:
        parts.append(
            original_part(
                notice.envelope,
                original,
                failed=notice.action is Action.FAILED,
                utf8=notice.utf8,
                seven_bit=notice.seven_bit,
                full_limit_bytes=notice.full_limit_bytes,
            )
        )
    head = _head(notice, original, boundary)
    return b"".join(
        (
            "".join(f"{each}\r\n" for each in head).encode("utf-8"),
            b"\r\nThis is a delivery status notification in MIME form (RFC 3464).\r\n",
            *(f"\r\n--{boundary}\r\n".encode("ascii") + each for each in parts),
            f"\r\n--{boundary}--\r\n".encode("ascii"),
        )
    )


def xtext_decoded(text: str) -> str:
    """`text` without its xtext encoding (RFC 3461 section 4), and without anything that could end a header field."""
    return line(from_xtext(text))


def _head(notice: Notice, original: bytes, boundary: str) -> list[str]:
    lines = [
        *field("From", f"Mail Delivery System <{ascii_line(notice.postmaster)}>"),
        *field("To", f"<{notice.to}>", utf8=not notice.seven_bit),
        *field("Subject", _SUBJECTS[notice.action]),
        *field("Date", format_datetime(notice.at.astimezone(UTC))),
        *field("Message-ID", f"<{notice.queue_id}@{notice.hostname}>"),
    ]
    found = _MESSAGE_ID.search(header_of(original))
    if found is not None:
        about = found.group(1).decode("ascii")
        lines += [*field("In-Reply-To", about), *field("References", about)]
    return [
        *lines,
        *field("Auto-Submitted", "auto-replied"),  # RFC 3834 section 5: no vacation program answers this
        *field("MIME-Version", "1.0"),
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
    ]


# -- first part: for people


def _text_part(notice: Notice) -> bytes:
    envelope = notice.envelope
    accepted = format_datetime(envelope.accepted_at.astimezone(UTC))
    if notice.action is Action.FAILED:
        what = "Your message could not be delivered to the recipients below. No further attempt will be made."
        then = "If the reason does not help you, pass this whole message on to your postmaster."
    elif notice.action is Action.RELAYED:
        what = "Your message was handed on, for the recipients below, to a mail server that sends no delivery reports."
        then = "You will hear no more of it unless it cannot be delivered."
    else:
        until = format_datetime(notice.retry_until.astimezone(UTC)) if notice.retry_until is not None else "it expires"
        what = "Your message has not been delivered yet to the recipients below. You need not send it again."
        then = f"Delivery will be tried again until {until}. If it does not succeed by then, you will be told."
    paragraphs = [
        f"This is the mail system at {notice.hostname}.",
        what,
        *(_about(notice, result) for result in notice.results),
        f"Accepted here on {accepted}, queue id {envelope.id}.",
        then,
    ]
    text = "\n\n".join(paragraphs) + "\n"
    content = text.replace("\n", "\r\n").encode("utf-8")
    return part("text/plain; charset=us-ascii", "text/plain; charset=utf-8", content, seven_bit=notice.seven_bit)


def _about(notice: Notice, result: RecipientResult) -> str:
    clean = line if notice.utf8 else ascii_line
    if result.code:
        said = f"{result.next_hop or 'the next mail server'} said: {clean(result.reply)}"
    else:
        said = clean(result.text) or "no mail server answered"
    if notice.action is Action.FAILED and result.is_open:
        said = f"not delivered in time; at the last attempt {said}"
    wrapped = textwrap.fill(said, 72, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    return f"<{clean(result.recipient.address)}>:\n{wrapped}"


# -- second part: for programs


def _status_part(notice: Notice) -> bytes:
    envelope = notice.envelope
    message = field("Reporting-MTA", f"dns; {notice.hostname}")
    if envelope.envid:
        message += field("Original-Envelope-Id", xtext_decoded(envelope.envid))
    message += field("X-Postern-Queue-ID", envelope.id)
    message += field("Arrival-Date", format_datetime(envelope.accepted_at.astimezone(UTC)))
    groups = [message, *(_recipient_fields(notice, result) for result in notice.results)]
    fields = "\r\n".join("".join(f"{each}\r\n" for each in group) for group in groups)
    return part("message/delivery-status", "message/global-delivery-status", fields.encode("utf-8"), seven_bit=notice.seven_bit)


def _recipient_fields(notice: Notice, result: RecipientResult) -> list[str]:
    utf8 = notice.utf8
    lines = _original_recipient(result.recipient, utf8=utf8)
    lines += field("Final-Recipient", _typed_address(result.recipient.address), utf8=utf8)
    lines += field("Action", notice.action.value)
    lines += field("Status", status_of(notice.action, result))
    if result.code:
        host = result.next_hop.rpartition(":")[0]
        if host:
            lines += field("Remote-MTA", f"dns; {_domain_or_literal(host)}")
        lines += field("Diagnostic-Code", f"smtp; {result.reply}", utf8=utf8)
    elif result.text:
        lines += field("Diagnostic-Code", f"x-postern; {result.text}", utf8=utf8)
    lines += field("Last-Attempt-Date", format_datetime(result.at.astimezone(UTC)))
    if notice.action is Action.DELAYED and notice.retry_until is not None:
        lines += field("Will-Retry-Until", format_datetime(notice.retry_until.astimezone(UTC)))
    return lines


def status_of(action: Action, result: RecipientResult) -> str:
    """The Status field: what the server said where its class fits the action, else a code of that class (RFC 3463)."""
    wanted = {Action.FAILED: "5", Action.DELAYED: "4", Action.RELAYED: "2"}[action]
    if result.status.startswith(f"{wanted}."):
        return result.status
    if action is Action.RELAYED or result.code // 100 == int(wanted):
        return f"{wanted}.0.0"
    return "4.4.1" if action is Action.DELAYED else "5.4.7" if result.is_open else "5.0.0"


def _original_recipient(recipient: Recipient, *, utf8: bool) -> list[str]:
    kind, semicolon, address = recipient.orcpt.partition(";")
    if not semicolon or not re.fullmatch(r"[A-Za-z0-9-]{1,40}", kind):
        return []
    if kind.lower() != "utf-8":
        return field("Original-Recipient", f"{kind}; {xtext_decoded(address)}")
    original = from_unitext(address)
    if original is None:
        return []
    # RFC 6533 section 3: as it is only where UTF-8 may stand
    return field("Original-Recipient", f"{kind}; {original if utf8 else to_seven_bit(original)}", utf8=utf8)


def _typed_address(address: str) -> str:
    return f"{'rfc822' if address.isascii() else 'utf-8'}; {line(address)}"


def _domain_or_literal(host: str) -> str:
    """A next hop's host as SMTP writes it: addresses in brackets, those of IPv6 with their tag (RFC 5321 section 4.1.3)."""
    if host.startswith("["):
        return f"[IPv6:{host[1:]}"
    return f"[{host}]" if re.fullmatch(r"[0-9.]+", host) else host
