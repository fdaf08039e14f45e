"""Paths: the `<...>` of MAIL and RCPT → a reverse-path or forward-path (RFC 5321 section 4.1.2 and 4.1.3).

The grammar is kept strictly: angle brackets, a dot-string or a quoted-string, a domain of letters, digits, hyphens (and underscores,
which exist) or an address literal. No trailing dot, no empty label, no all-numeric top level. Sizes: path at most 512 octets; local-parts may
be longer than the 64 octets of section 4.5.3.1.1, because rewritten senders (VERP, SRS) are. Where a line may hold UTF-8 at all, so may local-part
and domain (RFC 6531 section 3.3): the local-part stays as it came, the domain becomes A-labels. Not known here: which domains are ours.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final

import msgspec

from postern_core.policy.domains import normalise_domain
from postern_smtp.utf8_address import octets

MAX_PATH_OCTETS: Final = 512
_KNOWN_DOMAINS: Final = 4096  # of 253 octets at most: about a megabyte

_UTF8 = r"\u00a0-\U0010ffff"


def _grammar(beyond: str) -> re.Pattern[str]:
    """Of a path in which `beyond` may stand beside ASCII."""
    atom = rf"[A-Za-z0-9!#$%&'*+\-/=?^_`{{|}}~{beyond}]+"
    return re.compile(
        r"<(?P<route>@[A-Za-z0-9._@,\[\]:-]*:)?"
        rf"(?P<local>{atom}(?:\.{atom})*|\"(?:[ !\x23-\x5b\x5d-\x7e{beyond}]|\\[ -~])*\")?"
        rf"(?:@(?P<domain>[A-Za-z0-9._{beyond}-]+|\[[A-Za-z0-9:.-]+\]))?>"
    )


_PATH = _grammar("")
_UTF8_PATH = _grammar(_UTF8)


class ReversePath(msgspec.Struct, frozen=True):
    """Where failures are told to. `address` is "" for the null reverse-path, which must never be bounced (section 4.5.5)."""

    address: str


class ForwardPath(msgspec.Struct, frozen=True):
    """One recipient: the local-part as received (with its quotes), the domain in lower case and A-labels; both never empty but for <Postmaster>."""

    local_part: str
    domain: str  # "" for <Postmaster> alone (section 4.5.1); "[...]" for an address literal
    has_source_route: bool = False  # obsolete (appendix C)

    @property
    def address(self) -> str:
        return f"{self.local_part}@{self.domain}"

    @property
    def is_literal(self) -> bool:
        return self.domain.startswith("[")

    @property
    def unquoted_local_part(self) -> str:
        """The local-part without quotes and quoted-pairs: what the next hop will see in it."""
        if not self.local_part.startswith('"'):
            return self.local_part
        return re.sub(r"\\(.)", r"\1", self.local_part[1:-1])


def parse_reverse_path(text: str) -> tuple[ReversePath, str]:
    """The path at the start of `text`, and what stands behind it. A source route is dropped (appendix C). ValueError for anything else."""
    local, domain, _, rest = _parse(text)
    if not local and not domain:
        return ReversePath(""), rest
    if not local or not domain:
        raise ValueError("neither a mailbox nor the null reverse-path")
    return ReversePath(f"{local}@{domain}"), rest


def parse_forward_path(text: str) -> tuple[ForwardPath, str]:
    """The path at the start of `text`, and what stands behind it. ValueError when it is none."""
    local, domain, has_route, rest = _parse(text)
    if not local or (not domain and (has_route or local.casefold() != "postmaster")):
        raise ValueError("not a mailbox")
    return ForwardPath(local, domain, has_route), rest


def _parse(text: str) -> tuple[str, str, bool, str]:
    found = _PATH.match(text) if text.isascii() else _UTF8_PATH.match(text)
    if found is None or octets(found.group()) > MAX_PATH_OCTETS or not found.group().isprintable():
        raise ValueError("not a path")
    rest = text[found.end() :]
    if rest and not rest.startswith(" "):
        raise ValueError("something stands behind the path")
    route = found["route"]
    if route is not None and not found["domain"]:
        raise ValueError("a source route without a mailbox")
    return found["local"] or "", _checked_domain(found["domain"] or ""), route is not None, rest.strip(" ")


@lru_cache(_KNOWN_DOMAINS)
def _checked_domain(domain: str) -> str:
    if not domain:
        return ""
    if domain.startswith("["):
        return _checked_literal(domain)
    if domain.endswith("."):
        raise ValueError("a domain has no dot at its end")
    domain = normalise_domain(domain)
    if domain.rpartition(".")[2].isdigit():
        raise ValueError("an address stands in brackets")
    return domain


def _checked_literal(domain: str) -> str:
    address = domain[1:-1]
    if address[:5].lower() == "ipv6:":
        return f"[IPv6:{ipaddress.IPv6Address(address[5:])}]"
    return f"[{ipaddress.IPv4Address(address)}]"
