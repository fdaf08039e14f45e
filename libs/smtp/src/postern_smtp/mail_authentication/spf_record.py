"""SPF records: a domain's TXT → its terms, and the macros in them (RFC 7208 sections 4.6.1, 5, 6 and 7). Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from postern_core.policy.networks import IpAddress
from postern_smtp.mail_authentication.results import Result

_DIRECTIVE: Final = re.compile(
    r"([+?~-]?)(all|include|a|mx|ptr|ip4|ip6|exists)(?=[:/]|\Z)(?::([^/\s]+(?:/[^/\s]*[^/\s\d][^/\s]*)*))?((?:/\d{1,2})?(?://\d{1,3})?)",
    re.IGNORECASE,
)
_NETWORK: Final = re.compile(r"([+?~-]?)ip([46]):([0-9A-Fa-f:.]+)(?:/(\d{1,3}))?", re.IGNORECASE)
_MODIFIER: Final = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=([!-~]*)")
_MACRO: Final = re.compile(r"%(?:%|_|-|\{([SLODIPVHCRTslodipvhcrt])(\d{0,3})(r?)([.+,/_=-]*)\})", re.IGNORECASE)
_RESULTS: Final = {"+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL, "": Result.PASS}
_MAX_NAME: Final = 253
_NEEDS_NAME: Final = {"include", "exists"}
_MAY_HAVE_SIZES: Final = {"a", "mx"}
_MAY_HAVE_NAME: Final = _NEEDS_NAME | _MAY_HAVE_SIZES | {"ptr"}


class SpfSyntaxError(ValueError):
    """A record that is wrong: permerror."""


@dataclass(frozen=True, slots=True)
class Directive:
    """`mechanism` matches, then it is `result`. `name` is still with its macros."""

    result: Result
    mechanism: str
    name: str = ""
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    ipv4_bits: int = 32
    ipv6_bits: int = 128


@dataclass(frozen=True, slots=True)
class SpfRecord:
    """All terms of one record."""

    directives: tuple[Directive, ...]
    redirect: str | None = None


@dataclass(frozen=True, slots=True)
class Macros:
    """What macros stand for. `domain` changes with each record."""

    address: IpAddress
    sender: str
    helo: str
    domain: str


def is_spf(text: bytes) -> bool:
    """Whether a TXT record is one of SPF (section 4.5)."""
    return text[:6].lower() == b"v=spf1" and text[6:7] in (b"", b" ")


def parse_record(text: bytes) -> SpfRecord:
    """SpfSyntaxError for anything that is wrong, wherever it stands (section 4.6)."""
    try:
        terms = text[6:].decode("ascii").split()
    except UnicodeDecodeError as error:
        raise SpfSyntaxError("not ASCII") from error
    directives: list[Directive] = []
    modifiers: dict[str, str] = {}
    for term in terms:
        modifier = _MODIFIER.fullmatch(term)
        if modifier is None:
            directives.append(_directive(term))
            continue
        name = modifier[1].lower()
        if name in ("redirect", "exp"):
            if name in modifiers or not modifier[2]:
                raise SpfSyntaxError(name)
            check_macros(modifier[2])
        modifiers[name] = modifier[2]
    return SpfRecord(tuple(directives), modifiers.get("redirect"))


def _directive(term: str) -> Directive:
    network = _NETWORK.fullmatch(term)
    if network is not None:
        kind = ipaddress.IPv4Network if network[2] == "4" else ipaddress.IPv6Network
        most = 32 if network[2] == "4" else 128
        try:
            found = kind(f"{network[3]}/{network[4] or most}", strict=False)
        except ValueError as error:
            raise SpfSyntaxError(term) from error
        return Directive(_RESULTS[network[1]], "ip", network=found)
    match = _DIRECTIVE.fullmatch(term)
    if match is None:
        raise SpfSyntaxError(term)
    sign, mechanism, name, sizes = match[1], match[2].lower(), match[3] or "", match[4]
    if (
        mechanism in ("ip4", "ip6")
        or (mechanism in _NEEDS_NAME and not name)
        or (name and mechanism not in _MAY_HAVE_NAME)
        or (sizes and mechanism not in _MAY_HAVE_SIZES)
    ):
        raise SpfSyntaxError(term)
    check_macros(name)
    four, _, six = sizes.partition("//")
    ipv4_bits, ipv6_bits = int(four.removeprefix("/") or 32), int(six or 128)
    if ipv4_bits > 32 or ipv6_bits > 128:
        raise SpfSyntaxError(term)
    return Directive(_RESULTS[sign], mechanism, name, ipv4_bits=ipv4_bits, ipv6_bits=ipv6_bits)


def check_macros(text: str) -> None:
    """SpfSyntaxError for a per cent sign that is no macro (section 7.1)."""
    if "%" in _MACRO.sub("", text):
        raise SpfSyntaxError(text)


def expand(text: str, macros: Macros) -> str:
    """A domain-spec as the name to ask for; leftmost labels go when it is too long (section 7.3)."""
    name = _MACRO.sub(lambda match: _macro(match, macros), text).removesuffix(".")
    while len(name) > _MAX_NAME and "." in name:
        name = name.partition(".")[2]
    return name


def _macro(match: re.Match[str], macros: Macros) -> str:
    if match[1] is None:
        return {"%%": "%", "%_": " ", "%-": "%20"}[match[0]]
    letter = match[1].lower()
    local_part, _, sender_domain = macros.sender.rpartition("@")
    address = macros.address
    value = {
        "s": macros.sender,
        "l": local_part,
        "o": sender_domain,
        "d": macros.domain,
        "i": str(address) if address.version == 4 else ".".join(address.exploded.replace(":", "")),
        "p": "unknown",  # section 7.2 has it so when there is no name, and asks nobody to look for one
        "v": "in-addr" if address.version == 4 else "ip6",
        "h": macros.helo,
    }.get(letter, "unknown")
    parts = re.split(f"[{re.escape(match[4] or '.')}]", value)
    if match[3]:
        parts.reverse()
    if match[2]:
        kept = int(match[2])
        parts = parts[-kept:] if kept else parts
    value = ".".join(parts)
    return quote(value, safe="") if match[1].isupper() else value
