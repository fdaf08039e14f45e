"""Addresses and hosts that administrators write, in canonical form (RFC 5321 sections 2.3.11, 4.1.2, 4.1.3 and 4.5.3.1)."""

from __future__ import annotations

import ipaddress
import re

from postern_api.errors import InvalidError
from postern_core.policy.domains import normalise_domain, normalise_pattern

# atoms joined by dots (RFC 5321 section 4.1.2), with UTF-8 beside ASCII (RFC 6531); quoted local-parts are not taken
_LOCAL_PART = re.compile(r"[^\s\x00-\x20\x7f\"(),.:;<>@\[\]\\]+(?:\.[^\s\x00-\x20\x7f\"(),.:;<>@\[\]\\]+)*")


def checked_domain(text: str) -> str:
    try:
        return normalise_domain(text)
    except ValueError as error:
        raise InvalidError("invalid_domain", str(error)) from error


def checked_pattern(text: str) -> str:
    try:
        return normalise_pattern(text.strip())
    except ValueError as error:
        raise InvalidError("invalid_domain", str(error)) from error


def checked_address(text: str) -> str:
    """`local-part@domain`, the domain normalised."""
    local, at, domain = text.strip().rpartition("@")
    if not at or not _LOCAL_PART.fullmatch(local) or len(local.encode()) > 64:
        raise InvalidError("invalid_address", f"{text!r} is not an address of the form local-part@domain")
    try:
        return f"{local}@{normalise_domain(domain)}"
    except ValueError as error:
        raise InvalidError("invalid_address", f"{text!r} is not an address: {error}") from error


def checked_host(text: str) -> str:
    """A smart host without brackets: an IP address, or a normalised name."""
    bare = text.strip()
    bracketed = bare.startswith("[") and bare.endswith("]")
    literal = bare[1:-1] if bracketed else bare
    if bracketed and literal[:5].lower() == "ipv6:":
        literal = literal[5:]
    try:
        return str(ipaddress.ip_address(literal))
    except ValueError:
        if bracketed:
            raise InvalidError("invalid_smart_host", f"{text!r}: there is no IP address in the brackets") from None
    try:
        return normalise_domain(bare)
    except ValueError as error:
        raise InvalidError("invalid_smart_host", f"{text!r} is neither a host name nor an [IP address]") from error


def shown_host(host: str) -> str:
    """The host as administrators write it: IP addresses in brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return f"[{host}]"


def checked_sender_pattern(text: str) -> str:
    """An address, a domain or `*.domain`."""
    return checked_address(text) if "@" in text else checked_pattern(text)


def checked_own_sender(text: str) -> str:
    """What a user may send from: an address, `@domain` or a domain, `@*.domain` or `*.domain`."""
    return checked_sender_pattern(text.strip().removeprefix("@"))
