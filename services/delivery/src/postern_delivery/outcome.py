"""What the replies of one attempt mean for each recipient: delivered, retry, or bounce.

The only place where a reply becomes one of these; nothing else in delivery compares reply codes. Whatever nobody classified is *retry*,
so that the mail is kept. Pure.
Standards: RFC 5321 sections 4.2.1 (reply classes), 4.5.3.1.10 (552 to RCPT), 3.8 (421); RFC 1047 (no answer to the final dot).
An enhanced status code that contradicts the first digit of its reply counts for nothing: the digit decides.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import datetime

import msgspec

from postern_core.envelope import Recipient
from postern_core.policy import NextHop
from postern_smtp.client import ConnectionFailed, ConnectionLost, RecipientOutcome, ServerReply


class Fate(enum.StrEnum):
    """What becomes of a recipient after an attempt."""

    DELIVERED = "delivered"  # the next hop took responsibility
    RETRY = "retry"  # not now
    TOO_MANY = "too-many"  # the next hop takes no more recipients in this transaction: retry, in another one
    BOUNCE = "bounce"  # never


class RecipientResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last word about one recipient. `code` 0: no server said anything, and `text` is our own."""

    recipient: Recipient
    fate: Fate
    at: datetime
    code: int = 0
    status: str = ""
    text: str = ""
    next_hop: str = ""  # host:port
    in_doubt: bool = False  # it may have its copy already (RFC 1047)
    peer_reports: bool = False  # the next hop reports success itself, where the sender asked for that (RFC 3461)

    @property
    def reply(self) -> str:
        """The reply as one line, at most 500 characters."""
        return " ".join(filter(None, (str(self.code or ""), self.status, self.text)))[:500]

    @property
    def is_open(self) -> bool:
        return self.fate in (Fate.RETRY, Fate.TOO_MANY)


Results = tuple[RecipientResult, ...]


def fate_of(reply: ServerReply, stage: str) -> Fate:
    """What a final reply at `stage` ("mail", "rcpt", "data", "end-of-data") means."""
    if reply.code == 421:  # the service closes the channel: temporary whatever it answers
        return Fate.RETRY
    if stage == "rcpt" and reply.code in (452, 552):  # RFC 5321 section 4.5.3.1.10: treat 552 as 452
        return Fate.TOO_MANY
    match reply.code // 100:
        case 2:
            return Fate.DELIVERED
        case 5:
            return Fate.BOUNCE
        case _:
            return Fate.RETRY


def of_outcomes(outcomes: Iterable[RecipientOutcome], next_hop: NextHop | None, at: datetime) -> Results:
    """The results of a transaction that came to its end."""
    hop = next_hop_text(next_hop)
    return tuple(
        RecipientResult(
            recipient=outcome.recipient,
            fate=fate_of(outcome.reply, outcome.stage),
            at=at,
            code=outcome.reply.code,
            status=outcome.reply.status,
            text=outcome.reply.text,
            next_hop=hop,
            peer_reports=outcome.peer_reports,
        )
        for outcome in outcomes
    )


def of_failed(recipients: Iterable[Recipient], failed: ConnectionFailed, at: datetime) -> Results:
    """No session came about: retry, a 5yz greeting included (it says something about that host, not about the mail)."""
    reply = failed.reply
    return retry_all(
        recipients,
        at,
        text=reply.text if reply else failed.reason,
        code=reply.code if reply else 0,
        status=reply.status if reply else "",
        next_hop=next_hop_text(failed.next_hop),
    )


def of_lost(recipients: Iterable[Recipient], lost: ConnectionLost, at: datetime) -> Results:
    """The session broke: what was final stays final, everybody else is retried; some of them may have their copy."""
    known = of_outcomes(lost.outcomes, lost.next_hop, at)
    settled = {result.recipient.n for result in known}
    in_doubt = {recipient.n for recipient in lost.in_doubt}
    rest = [recipient for recipient in recipients if recipient.n not in settled]
    text, hop = f"connection lost at {lost.stage}: {lost.reason}"[:500], next_hop_text(lost.next_hop)
    doubted = retry_all((r for r in rest if r.n in in_doubt), at, text=text, next_hop=hop, in_doubt=True)
    return known + doubted + retry_all((r for r in rest if r.n not in in_doubt), at, text=text, next_hop=hop)


def retry_all(
    recipients: Iterable[Recipient],
    at: datetime,
    *,
    text: str,
    code: int = 0,
    status: str = "",
    next_hop: str = "",
    in_doubt: bool = False,
) -> Results:
    """Everybody is retried, for the same reason."""
    return tuple(
        RecipientResult(
            recipient=recipient,
            fate=Fate.RETRY,
            at=at,
            code=code,
            status=status,
            text=text[:500],
            next_hop=next_hop,
            in_doubt=in_doubt,
        )
        for recipient in recipients
    )


def reopened(result: RecipientResult) -> RecipientResult:
    """The same answer, to be asked for again: what follows from it could not be stored."""
    return msgspec.structs.replace(result, fate=Fate.RETRY)


def closed(result: RecipientResult) -> RecipientResult:
    """The same answer, not to be asked for again: an administrator gave up."""
    return msgspec.structs.replace(result, fate=Fate.BOUNCE)


def next_hop_text(next_hop: NextHop | None) -> str:
    """As host:port, IPv6 addresses in brackets."""
    if next_hop is None:
        return ""
    host = f"[{next_hop.host}]" if ":" in next_hop.host else next_hop.host
    return f"{host}:{next_hop.port}"
