"""The Received: field that a gate puts in front of a message, and the count of those that are there (RFC 5321 section 4.4 and 6.3).

Whatever the client said goes in only after it was checked or cleaned: the field cannot be broken out of, and it has a maximal length.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Final

from postern_core.envelope import Client, HostCheck
from postern_core.ids import QueueId

_MAX_TOKEN = 100
_MAX_HOST: Final = 253  # RFC 1035; a name that DNS gave
_HOST_NOTES: Final[dict[HostCheck | None, str]] = {
    HostCheck.UNVERIFIED: " (unverified)",
    HostCheck.FAILED: " (RDNS failed)",
}  # OLD-PRODUCT 6.15
_KNOWN_ADDRESSES: Final = 1024
_UNSAFE = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# both cases of each letter, where IGNORECASE would look at every octet of the header in place of its line ends: a fifteenth of the time
_RECEIVED: Final = rb"[Rr][Ee][Cc][Ee][Ii][Vv][Ee][Dd][ \t]*:"
_FIRST_HOP: Final = re.compile(_RECEIVED)
_LATER_HOP: Final = re.compile(rb"\n" + _RECEIVED)
_MAX_HEADER_OCTETS: Final = 1024 * 1024


def received_field(
    *,
    client: Client,
    extended: bool,
    utf8: bool = False,
    hostname: str,
    queue_id: QueueId,
    at: datetime,
    only_recipient: str = "",
) -> bytes:
    """The whole field with its CRLF. `utf8`: the client said SMTPUTF8. `only_recipient` is shown when it is the only one (else it would
    tell one recipient of another) and in ASCII: the field must not be what keeps a message from a server without SMTPUTF8."""
    is_shown = only_recipient and len(only_recipient) <= 2 * _MAX_TOKEN and only_recipient.isascii()
    recipient = f"\r\n\tfor <{only_recipient}>" if is_shown else ""
    tls = f" ({' '.join(map(_clean, client.tls[:_MAX_TOKEN].split(' ')))})" if client.tls else ""
    return (
        f"Received: from {_from_domain(client)}\r\n\tby {hostname} (Postern) with {_protocol(client, extended=extended, utf8=utf8)}{tls}\r\n"
        f"\tid {queue_id}{recipient};\r\n\t{_date(at.replace(microsecond=0))}\r\n"
    ).encode("ascii")


def _from_domain(client: Client) -> str:
    """`host ([address])`, or `host (name [address])` with the name that DNS confirms; when it was asked and did not, a comment says so. A host
    that is no domain stands in a comment, cleaned: then what is in front is the address."""
    literal = _literal(client.address)
    known = f"{client.host} {literal}" if _is_domain(client.host) and len(client.host) <= _MAX_HOST else literal
    note = _HOST_NOTES.get(client.host_check, "")
    if _is_domain(client.helo) and len(client.helo) <= _MAX_TOKEN:
        return f"{client.helo} ({known}){note}"
    return f"{literal}{f' ({known})' if known != literal else ''} (helo={_clean(client.helo)}){note}"


def _is_domain(text: str) -> bool:
    return _DOMAIN.fullmatch(text) is not None


@lru_cache(_KNOWN_ADDRESSES)
def _literal(address: str) -> str:
    try:
        return f"[{address}]" if ipaddress.ip_address(address).version == 4 else f"[IPv6:{address}]"
    except ValueError:
        return "unknown"


@lru_cache(1)  # the same for all messages of a second
def _date(second: datetime) -> str:
    return format_datetime(second)


def _protocol(client: Client, *, extended: bool, utf8: bool) -> str:
    """RFC 3848; RFC 6531 section 4.3."""
    if not extended:
        return "SMTP"
    return f"{'UTF8SMTP' if utf8 else 'ESMTP'}{'S' if client.tls else ''}{'A' if client.user else ''}"


def _clean(text: str) -> str:
    return _UNSAFE.sub("?", text[:_MAX_TOKEN])


def blank_before(message: bytes) -> bytes:
    """What has to stand between our field and `message`: an empty line when it begins with white space. It has no header then (RFC 5322
    section 2.2), and without that line its text would continue our field, where it could say anything."""
    return b"\r\n" if message[:1] in (b" ", b"\t") else b""


def count_hops(message: bytes) -> int:
    """How many Received: fields the header holds; looks at its first megabyte."""
    end = header_end(message)
    return len(_LATER_HOP.findall(message, 0, end)) + (_FIRST_HOP.match(message, 0, end) is not None)


def header_end(message: bytes) -> int:
    """Where the header ends, as far as it is looked at."""
    if message.startswith(b"\r\n"):
        return 0
    end = message.find(b"\r\n\r\n", 0, _MAX_HEADER_OCTETS)
    return end if end >= 0 else min(len(message), _MAX_HEADER_OCTETS)
