"""Addresses inside ORCPT and delivery reports: the typed forms `rfc822;` (RFC 3461 section 4) and `utf-8;` (RFC 6533 section 3). Pure.

xtext     `+` and two hexadecimal digits for an octet that may not stand by itself: type rfc822, and ENVID
unitext   `\\x{...}` for a character that may not, UTF-8 for the rest: type utf-8 inside SMTPUTF8
7-bit     unitext with `\\x{...}` for everything that is not ASCII: type utf-8 everywhere else (the RFC's utf-8-addr-xtext)
"""

from __future__ import annotations

import re
from typing import Final

MAX_ORCPT_OCTETS: Final = 500  # RFC 3461 section 4.2

_XTEXT_WORD: Final = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+"
_ORCPT: Final = re.compile(rf"[A-Za-z0-9-]+;{_XTEXT_WORD}")
_UNITEXT: Final = re.compile(r"(?:[!-*,-<>-\[\]-~\u00a0-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})+")
_EMBEDDED: Final = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")
_UTF8_TYPE: Final = "utf-8;"


def octets(text: str) -> int:
    """How long `text` is in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def is_orcpt(value: str) -> bool:
    """Whether ORCPT may have this value. What is not ASCII may stand in type utf-8 only, and needs SMTPUTF8, which the caller sees to."""
    if octets(value) > MAX_ORCPT_OCTETS:
        return False
    if value[: len(_UTF8_TYPE)].lower() != _UTF8_TYPE:
        return value.isascii() and _ORCPT.fullmatch(value) is not None
    address = value[len(_UTF8_TYPE) :]
    return _UNITEXT.fullmatch(address) is not None and from_unitext(address) is not None


def from_unitext(text: str) -> str | None:
    """`text` without its `\\x{...}`; None where that would bring in a control or another character that no address may hold."""
    try:
        address = _EMBEDDED.sub(lambda found: chr(int(found[1], 16)), text)
        address.encode("utf-8")  # surrogates are no characters
    except (ValueError, OverflowError):
        return None
    return address if address.isprintable() else None


def to_seven_bit(address: str) -> str:
    """An address for type utf-8, in ASCII."""
    return "".join(c if "!" <= c <= "~" and c not in "+=\\" else _embedded(c) for c in address)


def orcpt_in_seven_bit(value: str) -> str:
    """An ORCPT value for a peer that does not get SMTPUTF8. What is in unitext already stays so."""
    return value if value.isascii() else "".join(c if c.isascii() else _embedded(c) for c in value)


def from_xtext(text: str) -> str:
    """`text` without its xtext encoding, each octet one character."""
    return _XTEXT.sub(lambda found: chr(int(found[1], 16)), text)


def _embedded(character: str) -> str:
    return f"\\x{{{ord(character):02X}}}"
