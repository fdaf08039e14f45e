"""Mail that goes beside a message: copies to somebody else, and notices about it. Pure.

Each is a message of its own, of gate internal, with an id that derives from the message that it is about, so that a repeat is recognised; when it cannot be
delivered it goes to badmail, and nobody is told (no backscatter).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from postern_core.changes import ChangeKind
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import QueueId, derived_queue_id
from postern_core.policy.domains import normalise_domain
from postern_core.verdict import ChangeMade, Verdict
from postern_screener import notice
from postern_screener.changes.plan import COPIED_BY_FIELD
from postern_screener.ruleset import Ruleset
from postern_screener.screening import ORIGINAL_RECIPIENTS_FIELD, Screened


@dataclass(frozen=True, slots=True, eq=False)
class Companion:
    """Its envelope, and its bytes as a head in front of a body."""

    envelope: Envelope
    head: bytes
    body: bytes | memoryview


def companions(envelope: Envelope, body: bytes | memoryview, screened: Screened, ruleset: Ruleset) -> Iterator[Companion]:
    """The copies and notices that the verdict tells of, each once. `body`: the message as it came in, which is what a copy shows."""
    # where rules differ between recipients, it is beside the whole message that they go, and not beside each share of them
    verdicts = [outcome.verdict for outcome in screened.outcomes] or [screened.verdict]
    found: set[QueueId] = set()
    for verdict in verdicts:
        for made in verdict.changes:
            if made.skipped or made.monitored or not made.address or (own := companion_id(envelope, made)) in found:
                continue
            found.add(own)
            if made.kind == ChangeKind.COPY_TO:
                yield _copy(envelope, body, made)
            elif made.kind == ChangeKind.NOTIFY:
                yield _notice(envelope, made, verdict, screened.subject, ruleset)


def companion_id(envelope: Envelope, made: ChangeMade) -> QueueId:
    """One copy for each address; one notice for each rule and address."""
    about = "" if made.kind == ChangeKind.COPY_TO else made.rule_id
    seed = "\n".join((made.kind, envelope.id, about, made.address.casefold()))
    return derived_queue_id(envelope.accepted_at, hashlib.sha256(seed.encode()).digest())


def redirected(envelope: Envelope, queue_id: QueueId, address: str, size_bytes: int) -> Envelope:
    """The envelope of a message that goes to `address`: new recipient, the sender's reverse-path, none of his DSN wishes (OLD-PRODUCT 2.42)."""
    return Envelope(
        id=queue_id,
        gate=Gate.INTERNAL,
        reverse_path=envelope.reverse_path,
        recipients=(_recipient(address),),
        size_bytes=size_bytes,
        accepted_at=envelope.accepted_at,
        client=envelope.client,
        body_type=envelope.body_type,
        smtputf8=envelope.smtputf8 or not address.isascii(),
        requiretls=envelope.requiretls,  # RFC 8689 section 6
    )


def redirecting_header(envelope: Envelope, field: str, rule_id: str) -> bytes:
    """The fields in front of it, CRLF at the end of each; one original recipient a line (RFC 5322 section 2.1.1)."""
    recipients = ",\r\n ".join(_printable(recipient.address) for recipient in envelope.recipients)
    return f"{ORIGINAL_RECIPIENTS_FIELD}: {recipients}\r\n{field}: {_printable(rule_id)}\r\n".encode()


def _copy(envelope: Envelope, body: bytes | memoryview, made: ChangeMade) -> Companion:
    head = redirecting_header(envelope, COPIED_BY_FIELD, made.rule_id)
    copy = redirected(envelope, companion_id(envelope, made), made.address, len(head) + len(body))
    return Companion(copy, head, body)


def _notice(envelope: Envelope, made: ChangeMade, verdict: Verdict, subject: str, ruleset: Ruleset) -> Companion:
    queue_id, policy = companion_id(envelope, made), ruleset.policy
    hostname = policy.hostname or "localhost"
    content = notice.build(queue_id, made, envelope, verdict, subject, hostname=hostname, postmaster=policy.postmaster)
    head = Envelope(
        id=queue_id,
        gate=Gate.INTERNAL,
        reverse_path="",
        recipients=(_recipient(made.address),),
        size_bytes=len(content),
        accepted_at=envelope.accepted_at,
        client=Client(address="127.0.0.1", helo=hostname),
        smtputf8=not made.address.isascii(),
        requiretls=envelope.requiretls,  # the subject is in it
    )
    return Companion(head, b"", content)


def _recipient(address: str) -> Recipient:
    local_part, _, domain = address.rpartition("@")
    return Recipient(n=0, address=f"{local_part}@{normalise_domain(domain)}")


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
