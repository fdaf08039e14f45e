"""Writes delivery status notifications: NDRs (action failed), delay notices (delayed), notices of relaying (relayed). Pure.

A multipart/report of three parts: text that a person understands, the machine-readable message/delivery-status, and the original message
or its header. Everything is 7-bit with CRLF line ends and short lines, whatever the original holds: what is not ASCII in an address is
escaped as utf-8-addr-xtext, an 8-bit message is returned as its header only.
Standards: RFC 3464 (delivery-status), RFC 6522 (multipart/report), RFC 3461 section 4 (ENVID, ORCPT, RET), RFC 6533 section 3
(utf-8-addr-xtext), RFC 3834 section 5 (Auto-Submitted), RFC 5322. Known gap: no RFC 6533 types for SMTPUTF8 originals.
"""

from __future__ import annotations

import binascii
import enum
import re
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from postern_core.envelope import Envelope, Recipient
from postern_core.ids import QueueId
from postern_delivery.outcome import RecipientResult, Results

_MAX_HEADER_BYTES: Final = 64 * 1024  # of the original that are returned
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")
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


def build(notice: Notice, body: bytes | memoryview) -> bytes:
    """The notice as it goes on the wire, before dot-stuffing. `body` is the message that it is about; empty when it is lost."""
    original = bytes(body)
    boundary = f"=_{notice.queue_id}"
    parts = [_text_part(notice), _status_part(notice)]
    if original:
        parts.append(_original_part(notice, original))
    head = _head(notice, original, boundary)
    return b"".join(
        (
            "".join(f"{line}\r\n" for line in head).encode("ascii"),
            b"\r\nThis is a delivery status notification in MIME form (RFC 3464).\r\n",
            *(f"\r\n--{boundary}\r\n".encode("ascii") + part for part in parts),
            f"\r\n--{boundary}--\r\n".encode("ascii"),
        )
    )


def xtext_decoded(text: str) -> str:
    """`text` without its xtext encoding (RFC 3461 section 4), and without anything that could end a header field."""
    return _line(_XTEXT.sub(lambda match: chr(int(match.group(1), 16)), text))


def _head(notice: Notice, original: bytes, boundary: str) -> list[str]:
    lines = [
        *_field("From", f"Mail Delivery System <{_ascii(notice.postmaster)}>"),
        # an address that is not ASCII cannot stand in a 7-bit header; the envelope has it
        *_field("To", f"<{notice.to}>" if notice.to.isascii() else "undisclosed-recipients:;"),
        *_field("Subject", _SUBJECTS[notice.action]),
        *_field("Date", format_datetime(notice.at.astimezone(UTC))),
        *_field("Message-ID", f"<{notice.queue_id}@{notice.hostname}>"),
    ]
    found = _MESSAGE_ID.search(_header_of(original))
    if found is not None:
        about = found.group(1).decode("ascii")
        lines += [*_field("In-Reply-To", about), *_field("References", about)]
    return [
        *lines,
        *_field("Auto-Submitted", "auto-replied"),  # RFC 3834 section 5: no vacation program answers this
        *_field("MIME-Version", "1.0"),
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
    return b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + text.replace("\n", "\r\n").encode("ascii")


def _about(notice: Notice, result: RecipientResult) -> str:
    if result.code:
        said = f"{result.next_hop or 'the next mail server'} said: {_ascii(result.reply)}"
    else:
        said = _ascii(result.text) or "no mail server answered"
    if notice.action is Action.FAILED and result.is_open:
        said = f"not delivered in time; at the last attempt {said}"
    wrapped = textwrap.fill(said, 72, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    return f"<{_ascii(result.recipient.address)}>:\n{wrapped}"


# -- second part: for programs


def _status_part(notice: Notice) -> bytes:
    envelope = notice.envelope
    message = _field("Reporting-MTA", f"dns; {notice.hostname}")
    if envelope.envid:
        message += _field("Original-Envelope-Id", xtext_decoded(envelope.envid))
    message += _field("X-Postern-Queue-ID", envelope.id)
    message += _field("Arrival-Date", format_datetime(envelope.accepted_at.astimezone(UTC)))
    groups = [message, *(_recipient_fields(notice, result) for result in notice.results)]
    fields = "\r\n".join("".join(f"{line}\r\n" for line in group) for group in groups)
    return b"Content-Type: message/delivery-status\r\n\r\n" + fields.encode("ascii")


def _recipient_fields(notice: Notice, result: RecipientResult) -> list[str]:
    lines = _original_recipient(result.recipient)
    lines += _field("Final-Recipient", _typed_address(result.recipient.address))
    lines += _field("Action", notice.action.value)
    lines += _field("Status", status_of(notice.action, result))
    if result.code:
        host = result.next_hop.rpartition(":")[0]
        if host:
            lines += _field("Remote-MTA", f"dns; {_domain_or_literal(host)}")
        lines += _field("Diagnostic-Code", f"smtp; {_ascii(result.reply)}")
    elif result.text:
        lines += _field("Diagnostic-Code", f"x-postern; {_ascii(result.text)}")
    lines += _field("Last-Attempt-Date", format_datetime(result.at.astimezone(UTC)))
    if notice.action is Action.DELAYED and notice.retry_until is not None:
        lines += _field("Will-Retry-Until", format_datetime(notice.retry_until.astimezone(UTC)))
    return lines


def status_of(action: Action, result: RecipientResult) -> str:
    """The Status field: what the server said where its class fits the action, else a code of that class (RFC 3463)."""
    wanted = {Action.FAILED: "5", Action.DELAYED: "4", Action.RELAYED: "2"}[action]
    if result.status.startswith(f"{wanted}."):
        return result.status
    if action is Action.RELAYED or result.code // 100 == int(wanted):
        return f"{wanted}.0.0"
    return "4.4.1" if action is Action.DELAYED else "5.4.7" if result.is_open else "5.0.0"


def _original_recipient(recipient: Recipient) -> list[str]:
    kind, semicolon, address = recipient.orcpt.partition(";")
    if not semicolon or not re.fullmatch(r"[A-Za-z0-9-]{1,40}", kind):
        return []
    return _field("Original-Recipient", f"{kind}; {xtext_decoded(address)}")


def _typed_address(address: str) -> str:
    if address.isascii():
        return f"rfc822; {_line(address)}"
    escaped = "".join(c if c.isascii() and c not in "+=\\" else f"\\x{{{ord(c):X}}}" for c in address)
    return f"utf-8; {_line(escaped)}"


def _domain_or_literal(host: str) -> str:
    """A next hop's host as SMTP writes it: addresses in brackets, those of IPv6 with their tag (RFC 5321 section 4.1.3)."""
    if host.startswith("["):
        return f"[IPv6:{host[1:]}"
    return f"[{host}]" if re.fullmatch(r"[0-9.]+", host) else host


# -- third part: the message, or its header


def _original_part(notice: Notice, original: bytes) -> bytes:
    # RET says FULL, HDRS or nothing, and speaks of failures only (RFC 3461 section 4.3)
    wanted = notice.action is Action.FAILED and notice.envelope.ret.upper() != "HDRS"
    if wanted and len(original) <= notice.full_limit_bytes and _is_plain(original):
        return b"Content-Type: message/rfc822\r\n\r\n" + original
    header = _header_of(original)
    if _is_plain(header):
        return b"Content-Type: text/rfc822-headers\r\n\r\n" + header
    encoded = b"\r\n".join(binascii.b2a_qp(line, istext=False) for line in header.split(b"\r\n"))
    kind = b"Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return kind + re.sub(rb"(?<!\r)\n", b"\r\n", encoded)


def _header_of(original: bytes) -> bytes:
    """The header with the CRLF of its last field, cut at a line end when it is very long."""
    end = original.find(b"\r\n\r\n", 0, _MAX_HEADER_BYTES)
    if end >= 0:
        return original[: end + 2]
    cut = original[:_MAX_HEADER_BYTES]
    return cut if len(cut) == len(original) else cut[: cut.rfind(b"\r\n") + 2]


def _is_plain(content: bytes) -> bool:
    """Whether it can stand in a 7-bit part as it is (RFC 2045 section 2.7)."""
    if not content.isascii() or b"\0" in content:
        return False
    lines = content.split(b"\r\n")
    return all(len(line) <= 998 and b"\r" not in line and b"\n" not in line for line in lines)


# -- header fields


def _field(name: str, value: str) -> list[str]:
    """The lines of a header field, folded at blanks (RFC 5322 section 2.2.3)."""
    whole = f"{name}: {_ascii(value)}"
    if len(whole) <= 78:
        return [whole]
    lines = textwrap.wrap(whole, 76, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False)
    # a fold right behind the name would leave a line of nothing but the name
    if len(lines) > 1 and lines[0] == f"{name}:":
        lines[0:2] = [lines[0] + lines[1]]
    return lines


def _line(text: str) -> str:
    """`text` without characters that could end the line or fool a reader."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _ascii(text: str) -> str:
    """`text` in printable ASCII; what is not becomes a question mark."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)
