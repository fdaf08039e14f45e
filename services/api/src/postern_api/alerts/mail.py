"""An alert as a message, and as a job for delivery. Pure.

The message is plain US-ASCII with short lines, whatever an attacker wrote into what it tells of: nothing of that stands in its header, and in its body
everything unprintable is escaped. It goes to delivery as what Postern writes itself goes: gate internal, null reverse-path, so that nobody is told when
it cannot be delivered (no loop). Standards: RFC 5322, RFC 3834 section 5 (Auto-Submitted).
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from postern_api.alerts.catalogue import CATALOGUE, AlertKind
from postern_api.alerts.repository import Due, RaiseRow
from postern_api.alerts.thresholds import Subject
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import QueueId, derived_queue_id
from postern_core.job import Job
from postern_core.policy import DeliveryPolicy, DomainTable

_WIDTH: Final = 76
_MOST_ESCAPED: Final = 600  # characters of a value, escaped: an escape takes up to ten for one
_SHOWN: Final = 10  # subjects


def title_of(kind: str) -> str:
    """What the catalogue says of it; the name itself of what another version's catalogue held."""
    return CATALOGUE[AlertKind(kind)].title if kind in CATALOGUE else kind


def message_id(alert: RaiseRow, to: str) -> QueueId:
    """The queue id of the message: the same however often it is handed over."""
    return derived_queue_id(alert.recorded_at, hashlib.sha256(f"alert{alert.id} {alert.kind} {to}".encode()).digest())


def build(due: Due, *, hostname: str, postmaster: str) -> bytes:
    """The message as it goes on the wire, before dot-stuffing."""
    alert, to = due.alert, due.target
    header = [
        f"From: Postern <{postmaster if postmaster.isascii() else f'postmaster@{hostname}'}>",
        # an address that is not ASCII cannot stand in a 7-bit header; the envelope has it
        f"To: <{to}>" if to.isascii() else "To: undisclosed-recipients:;",
        f"Subject: [Postern] {title_of(alert.kind)}",
        f"Date: {format_datetime(alert.recorded_at.astimezone(UTC).replace(microsecond=0))}",
        f"Message-ID: <{message_id(alert, to)}@{hostname}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
    ]
    return "\r\n".join((*header, "", *_text(due, hostname), "")).encode("ascii")


def job_for(due: Due, content: bytes, policy: DeliveryPolicy, now: datetime) -> Job:
    """The message for `due.target`; its body is not stowed yet."""
    to = due.target
    recipient = Recipient(n=0, address=to)
    routes = DomainTable((domain.pattern, domain.route or policy.default_route) for domain in policy.relay_domains)
    envelope = Envelope(
        id=message_id(due.alert, to),
        gate=Gate.INTERNAL,
        reverse_path="",
        recipients=(recipient,),
        size_bytes=len(content),
        accepted_at=now,
        client=Client(address="127.0.0.1", helo=policy.hostname),
        smtputf8=not to.isascii(),
    )
    return Job(
        route=routes.find(recipient.domain) or policy.default_route,
        envelope=envelope,
        recipients=(recipient,),
        maybe_duplicate=due.attempts > 1,  # delivery looks before it sends
    )


def _text(due: Due, hostname: str) -> Iterator[str]:
    alert = due.alert
    yield from _wrapped(f"{title_of(alert.kind)} ({alert.kind}).")
    yield ""
    times = "once" if alert.count == 1 else f"{alert.count} times since {_time(alert.first_at)}"
    yield from _wrapped(f"It happened {times}, at last at {_time(alert.raised_at)}.")
    yield ""
    for subject in alert.subjects[:_SHOWN]:
        yield from _about(subject)
    if len(alert.subjects) > _SHOWN:
        yield f"... and {len(alert.subjects) - _SHOWN} more."
    for gate in due.pauses:
        yield ""
        yield from _wrapped(
            f"It pauses the gate {gate}, as its setting says: new connections get 421 until somebody opens it (PUT /api/v1/listeners/{gate}/state)."
        )
    if due.withheld:
        yield ""
        yield from _wrapped(
            f"{due.withheld} further alerts within the last hour were withheld from you, since more came than you are to get."
        )
    yield ""
    yield from _wrapped(
        f"This is Postern at {hostname}. GET /api/v1/alerts (postern alerts) lists all alerts. What is said here of clients is what they said of themselves."
    )


def _about(subject: Subject) -> Iterator[str]:
    who = _escaped(subject.about) or "(no subject)"
    yield from _wrapped(f"* {who}: {subject.count}, told by {_escaped(subject.service)}")
    for name, value in subject.fields.items():
        yield from _wrapped(f"    {_escaped(name)}: {_escaped(str(value))}", indent=" " * 6)


def _escaped(text: str) -> str:
    """Printable US-ASCII."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape", "surrogatepass").decode() for c in text)[:_MOST_ESCAPED]


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
