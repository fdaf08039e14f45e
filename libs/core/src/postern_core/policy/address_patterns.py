"""Patterns for envelope addresses, and whether an address is covered by one of many.

    example.com            every address of that domain
    *.example.com          every address of a domain below it, at any depth, and none of its own
    ann@example.com        that address; ann@*.example.com below it; ann@* in any domain
    news-*@example.com     one `*` in the local-part stands for anything, also in front of the other forms of a domain

Caseless, the local-part too: RFC 5321 section 2.4 lets its owner decide, but a list that a capital letter evades is none. Quotes in an
address are taken off before it is compared: `"ann"@example.com` is `ann@example.com`. The null reverse-path is never covered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from postern_core.policy.domains import normalise_domain, normalise_pattern

_ANY: Final = "*"
_QUOTED_PAIR: Final = re.compile(r"\\(.)")


def normalise_address_pattern(text: str) -> str:
    """`text` in canonical form. ValueError when it is no pattern."""
    local_part, at, domain = text.strip().rpartition("@")
    if not at:
        return normalise_pattern(domain)
    if not local_part or local_part.count("*") > 1 or not local_part.isprintable() or len(local_part.encode()) > 512:
        raise ValueError(f"{text!r}: in front of the @ stands a local-part with at most one *")
    if set(local_part) & set(' "\\<>'):
        raise ValueError(f"{text!r}: write the local-part without quotes, blanks and brackets")
    if local_part == domain == _ANY:
        raise ValueError(f"{text!r} covers everybody")
    return f"{local_part.casefold()}@{_ANY if domain == _ANY else normalise_pattern(domain)}"


class AddressPatterns:
    """Many patterns; an address costs a lookup for each label of its domain, and a look at each local-part with a `*` there."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """ValueError for a pattern that is none."""
        self._whole: set[str] = set()  # domain patterns
        self._exact: dict[str, set[str]] = {}  # domain pattern → local-parts
        self._starred: dict[str, list[tuple[str, str]]] = {}  # domain pattern → what stands before and behind the *
        for pattern in map(normalise_address_pattern, patterns):
            local_part, at, domain = pattern.rpartition("@")
            if not at or local_part == _ANY:
                self._whole.add(domain)
            elif _ANY in local_part:
                before, _, behind = local_part.partition(_ANY)
                self._starred.setdefault(domain, []).append((before, behind))
            else:
                self._exact.setdefault(domain, set()).add(local_part)
        self._has_local_parts = bool(self._exact or self._starred)

    def __bool__(self) -> bool:
        return bool(self._whole or self._has_local_parts)

    def covers(self, address: str) -> bool:
        """Whether a pattern covers `address` (as the envelope has it)."""
        if not address:
            return False
        local_part, _, domain = address.rpartition("@")
        try:
            domain = normalise_domain(domain)
        except ValueError:  # an address literal
            domain = domain.casefold()
        local_part = _unquoted(local_part).casefold() if self._has_local_parts else ""
        if self._covered_in(domain, local_part) or self._covered_in(_ANY, local_part):
            return True
        rest = domain
        while True:
            _, dot, rest = rest.partition(".")
            if not dot:
                return False
            if self._covered_in(f"*.{rest}", local_part):
                return True

    def _covered_in(self, domain: str, local_part: str) -> bool:
        if domain in self._whole:
            return True
        if not self._has_local_parts:
            return False
        if local_part in self._exact.get(domain, ()):
            return True
        return any(
            len(local_part) >= len(before) + len(behind) and local_part.startswith(before) and local_part.endswith(behind)
            for before, behind in self._starred.get(domain, ())
        )


def _unquoted(local_part: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", local_part[1:-1]) if local_part.startswith('"') else local_part
