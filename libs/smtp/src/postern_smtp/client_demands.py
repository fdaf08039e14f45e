"""What a message demands of the session that carries it: SMTPUTF8 (RFC 6531) and REQUIRETLS (RFC 8689). Pure.

    lack           what a session is short of for all of a message; another next hop may have it
    refuse         what nobody gets over this session, said in the peer's place
    refuse_to      what one recipient does not get

A message that came with SMTPUTF8 goes without where it can: RFC 6531 section 3.5 lets nobody change an address or a header for it, but what
is ASCII already needs nothing. Only the header of the message counts, not those inside its body: an 8BITMIME peer may have those.
REQUIRETLS has no such middle way: no session that is less than it asks for ever gets the message.
"""

from __future__ import annotations

from typing import Final

from postern_smtp.client_types import RecipientOutcome, ServerReply, Transaction
from postern_smtp.client_wire import Extensions

NO_UTF8_ADDRESS: Final = ServerReply(553, "5.6.7", "address is not ASCII and the next hop does not offer SMTPUTF8")
NO_UTF8_HEADER: Final = ServerReply(554, "5.6.9", "header is not ASCII and the next hop does not offer SMTPUTF8")
NO_REQUIRETLS: Final = ServerReply(
    550, "5.7.30", "REQUIRETLS needed, and the next hop does not offer it"
)  # RFC 8689 section 4.2.1
NO_VERIFIED_TLS: Final = ServerReply(550, "5.7.10", "TLS with a valid certificate needed, and the next hop has none")  # likewise


def lack(transaction: Transaction, extensions: Extensions, *, verified: bool) -> ServerReply | None:
    """None when the session can carry the message to every recipient. `verified`: it is inside TLS, with a certificate that was checked."""
    refusal = refuse(transaction, extensions, verified=verified)
    if refusal is None and not extensions.utf8 and not all(r.address.isascii() for r in transaction.recipients):
        return NO_UTF8_ADDRESS
    return refusal


def refuse(transaction: Transaction, extensions: Extensions, *, verified: bool) -> ServerReply | None:
    """None when the session can carry the message to somebody."""
    if transaction.requiretls:
        if not verified:
            return NO_VERIFIED_TLS
        if not extensions.requiretls:
            return NO_REQUIRETLS
    if extensions.utf8:
        return None
    if not transaction.reverse_path.isascii():
        return NO_UTF8_ADDRESS
    return NO_UTF8_HEADER if transaction.smtputf8 and not _has_ascii_header(transaction.body) else None


def refuse_to(address: str, extensions: Extensions) -> ServerReply | None:
    """None when the session can carry the message to `address`."""
    return None if extensions.utf8 or address.isascii() else NO_UTF8_ADDRESS


def needs_utf8(transaction: Transaction) -> bool:
    """Whether MAIL says SMTPUTF8 where that is offered."""
    return (
        transaction.smtputf8
        or not transaction.reverse_path.isascii()
        or not all(recipient.address.isascii() for recipient in transaction.recipients)
    )


def without_tls(transaction: Transaction) -> tuple[RecipientOutcome, ...]:
    """The outcomes when no next hop had TLS to trust."""
    return tuple(RecipientOutcome(recipient, NO_VERIFIED_TLS, "mail") for recipient in transaction.recipients)


def is_short_of_tls(outcomes: tuple[RecipientOutcome, ...]) -> bool:
    """Whether nothing took place for want of what REQUIRETLS asks for."""
    return all(outcome.reply is NO_REQUIRETLS or outcome.reply is NO_VERIFIED_TLS for outcome in outcomes)


def _has_ascii_header(body: bytes | memoryview) -> bool:
    data = bytes(body)  # no copy of bytes
    if data.startswith(b"\r\n"):
        return True
    end = data.find(b"\r\n\r\n")
    return data[: end if end >= 0 else len(data)].isascii()
