"""A notice: the mail that tells an administrator that a rule matched, on what, and what became of the message. Pure.

It goes to the address in the rule and to nobody else, from the null reverse-path, and holds nothing of the message but its subject: neither text nor
file names. 7-bit with short lines; what an attacker wrote is cleaned of everything that cannot be printed.
Standards: RFC 5322, RFC 3834 section 5 (Auto-Submitted).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import UTC
from email.utils import format_datetime

from postern_core.envelope import Envelope
from postern_core.ids import QueueId
from postern_core.mail_text import field, line, part, unstructured_field
from postern_core.verdict import ChangeMade, Verdict
from postern_screener.unscannable import detail_of_ours, unquoted

_WIDTH = 76
_SHOWN = 20  # recipients, places, changes
_CHARACTERS = 300  # of one value


def build(
    queue_id: QueueId, asked: ChangeMade, envelope: Envelope, verdict: Verdict, subject: str, *, hostname: str, postmaster: str
) -> bytes:
    """The notice as it goes on the wire, before dot-stuffing. `asked`: the change that asks for it. The same for the same message and verdict."""
    to, author = asked.address, postmaster if postmaster.isascii() and postmaster else f"postmaster@{hostname}"
    head = [
        *field("From", f"Postern <{author}>"),
        # an address that is not ASCII cannot stand in a 7-bit header; the envelope has it
        *(field("To", f"<{to}>") if to.isascii() else ["To: undisclosed-recipients:;"]),
    ]
    more = [
        *field("Date", format_datetime(envelope.accepted_at.astimezone(UTC).replace(microsecond=0))),
        *field("Message-ID", f"<{queue_id}@{hostname}>"),
        *field("Auto-Submitted", "auto-generated"),
        "MIME-Version: 1.0",
    ]
    text = "\r\n".join((*_text(asked, envelope, verdict, subject, hostname), ""))
    return b"".join(
        (
            "".join(f"{each}\r\n" for each in head).encode("ascii"),
            unstructured_field("Subject", f"[Postern] rule {line(asked.rule_name)[:100]}: {_outcome(verdict)}"),
            "".join(f"{each}\r\n" for each in more).encode("ascii"),
            part("text/plain; charset=us-ascii", "text/plain; charset=utf-8", text.encode("utf-8"), seven_bit=True),
        )
    )


def _outcome(verdict: Verdict) -> str:
    reason = f" ({verdict.hold_reason.value})" if verdict.hold_reason is not None else ""
    return f"{verdict.decision.value}{reason}"


def _text(asked: ChangeMade, envelope: Envelope, verdict: Verdict, subject: str, hostname: str) -> Iterator[str]:
    yield from _row("Rule", f"{asked.rule_name} ({asked.rule_id}), policy revision {verdict.revision}")
    detail = detail_of_ours(verdict)
    yield from _row("Outcome", f"{_outcome(verdict)}{': ' if detail else ''}{detail}")
    yield ""
    yield from _row("Queue id", envelope.id)
    yield from _row(
        "Accepted", f"{format_datetime(envelope.accepted_at.astimezone(UTC).replace(microsecond=0))}, gate {envelope.gate.value}"
    )
    user = f", user {envelope.client.user}" if envelope.client.user else ""
    yield from _row("Client", f"{envelope.client.address}{user}")
    yield from _row("Sender", envelope.reverse_path or "<> (null reverse-path)")
    for recipient in envelope.recipients[:_SHOWN]:
        yield from _row("Recipient", recipient.address)
    if len(envelope.recipients) > _SHOWN:
        yield from _row("", f"... and {len(envelope.recipients) - _SHOWN} more")
    yield from _row("Subject", subject or "(none)")
    yield from _row("Size", f"{envelope.size_bytes} bytes")
    yield ""
    places = [f"part {each.part}, octet {each.offset}" for each in verdict.findings if each.rule_id == asked.rule_id]
    for place in places[:_SHOWN]:
        yield from _row("Matched in", place)
    done = [each for each in verdict.changes if not each.monitored and each.kind != asked.kind]
    for each in done[:_SHOWN]:
        state = "not done: " + unquoted(each.detail) if each.skipped else ""
        yield from _row("Changed", " ".join(word for word in (each.kind, each.part, each.address, state) if word))
    yield ""
    yield from textwrap.wrap(
        f"This is Postern at {hostname}. The sender was not told. What is said here of the message is what its sender says.",
        _WIDTH,
    )


def _row(what: str, value: str) -> list[str]:
    first = f"{what + ':' if what else '':<12}"
    wrapped = textwrap.wrap(
        line(value)[:_CHARACTERS], _WIDTH, initial_indent=first, subsequent_indent=" " * 12, break_on_hyphens=False
    )
    return wrapped or [first.rstrip()]
