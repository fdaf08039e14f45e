"""Domain patterns: exact names and `*.name`, and the table that finds the most specific one.

`*.example.com` covers every name below example.com, at any depth, and not example.com itself; an exact name beats a wildcard,
and the longest wildcard wins.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable
from typing import Generic, TypeVar

import idna
import msgspec

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
V = TypeVar("V")


class Recipients(enum.StrEnum):
    """How the anonymous gate finds out which mailboxes a relay domain has. `postmaster` is always one of them (RFC 5321 section 4.5.1)."""

    ANY = "any"  # it does not: every local-part is taken
    LIST = "list"  # the domain's RecipientList says so
    CALLOUT = "callout"  # the next hop is asked, by RCPT
    DIRECTORY = "directory"  # a directory is asked, by LDAP


class RelayDomain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A domain under the administrator's control. `route` "" means the default route."""

    pattern: str
    route: str = ""
    accept: bool = True  # take mail for it from anybody; False: the entry only routes
    recipients: Recipients = Recipients.ANY


@functools.lru_cache(maxsize=1024)  # mail comes from few domains, and this is asked several times about each message
def normalise_domain(name: str) -> str:
    """`name` in lower case, A-label form (RFC 5890), without a trailing dot. ValueError when it is no domain name."""
    text = name.strip().removesuffix(".")
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"{name!r} is not a domain name: {error}") from error
    text = text.lower()
    if not text or len(text) > 253 or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError(f"{name!r} is not a domain name")
    return text


def normalise_pattern(pattern: str) -> str:
    """A domain or `*.domain`, normalised. ValueError otherwise."""
    if pattern.startswith("*."):
        return "*." + normalise_domain(pattern[2:])
    if "*" in pattern:
        raise ValueError(f"{pattern!r}: the wildcard may only stand in front, as in *.example.com")
    return normalise_domain(pattern)


class DomainTable(Generic[V]):
    """Finds the value of the most specific pattern for a domain, in time proportional to the number of its labels."""

    def __init__(self, entries: Iterable[tuple[str, V]]) -> None:
        self._exact: dict[str, V] = {}
        self._below: dict[str, V] = {}
        for pattern, value in entries:
            if pattern.startswith("*."):
                self._below[pattern[2:]] = value
            else:
                self._exact[pattern] = value

    def find(self, domain: str) -> V | None:
        """The value for `domain` (lower case, A-labels), or None."""
        found = self._exact.get(domain)
        if found is not None:
            return found
        rest = domain
        while self._below:
            _, dot, rest = rest.partition(".")
            if not dot:
                return None
            found = self._below.get(rest)
            if found is not None:
                return found
        return None
