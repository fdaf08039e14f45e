"""Sender rules: addresses and domains against the reverse-path and every address that From: shows (OLD-PRODUCT 2.20, 2.21).

`a@example.com` is that address, `example.com` all its addresses, `*.example.com` those of every domain below it and not its own.
Domains are compared caseless and in A-label form (RFC 5890). Local-parts are caseless too: RFC 5321 section 2.4 lets their owner decide,
but no owner in use distinguishes them, and a rule that a capital letter evades is none.
From: is read generously: whatever looks like an address in it counts, display names and comments included, because clients show those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from postern_core.policy.domains import normalise_domain, normalise_pattern
from postern_screener.checks.hit import Hit, at_start

_ADDRESS: Final = re.compile(r"""[^\s<>,;:()"\[\]@]+@(?:\[[^\]\s]*\]|[^\s<>,;:()"\[\]@]+)""")
_MAX_ADDRESSES: Final = 1000


class SenderCheck:
    """All sender rules in one table: a lookup for each label of a domain, however many patterns there are."""

    def __init__(self, rules: Iterable[tuple[int, Sequence[str]]]) -> None:
        """`rules`: index and patterns. ValueError for a pattern that is none."""
        self._addresses: dict[str, list[int]] = {}
        self._domains: dict[str, list[int]] = {}
        self._below: dict[str, list[int]] = {}
        for rule, patterns in rules:
            for pattern in patterns:
                self._add(rule, pattern.strip())

    def _add(self, rule: int, pattern: str) -> None:
        local_part, at, domain = pattern.rpartition("@")
        if at and local_part:
            key = _normalise(local_part, normalise_domain(domain))
            self._addresses.setdefault(key, []).append(rule)
            return
        normalised = normalise_pattern(domain)
        if normalised.startswith("*."):
            self._below.setdefault(normalised[2:], []).append(rule)
        else:
            self._domains.setdefault(normalised, []).append(rule)

    def check(self, reverse_path: str, from_fields: Sequence[str]) -> Iterator[Hit]:
        """Hits on the envelope first, then on From:."""
        if not (self._addresses or self._domains or self._below):
            return
        if reverse_path:
            for rule in self._matching(reverse_path):
                yield Hit(rule, "envelope", at_start(reverse_path))
        for value in from_fields:
            for found in _addresses(value):
                for rule in self._matching(found):
                    yield Hit(rule, "header", at_start(found))

    def _matching(self, address: str) -> Iterator[int]:
        local_part, _, written = address.rpartition("@")
        try:
            domain = normalise_domain(written)
        except ValueError:
            domain = written.casefold()
        yield from self._addresses.get(_normalise(local_part, domain), ())
        yield from self._domains.get(domain, ())
        rest = domain
        while self._below:
            _, dot, rest = rest.partition(".")
            if not dot:
                return
            yield from self._below.get(rest, ())


def _addresses(field_value: str) -> list[str]:
    return _ADDRESS.findall(field_value[:100_000])[:_MAX_ADDRESSES]


def _normalise(local_part: str, domain: str) -> str:
    return local_part.strip('"').casefold() + "@" + domain
