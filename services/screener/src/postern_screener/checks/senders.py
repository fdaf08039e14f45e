"""Sender rules: addresses and domains against the reverse-path and every address that From: shows (OLD-PRODUCT 2.20, 2.21).

`a@example.com` is that address, `example.com` all its addresses, `*.example.com` those of every domain below it and not its own.
Domains are compared caseless and in A-label form (RFC 5890). Local-parts are caseless too: RFC 5321 section 2.4 lets their owner decide,
but no owner in use distinguishes them, and a rule that a capital letter evades is none. Nor does it matter of which code points a letter is
made (NFC, RFC 6532 section 3.1).
From: is read generously: whatever looks like an address in it counts, display names and comments included, because clients show those;
so do quoted local-parts and the blanks and comments that RFC 5322 section 4.4 allows around `@` and dots. Each `@` is looked at once,
within bounds, so that the time is linear in the field.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from postern_core.policy import ListKind, Lists, SenderCondition
from postern_core.policy.domains import normalise_domain, normalise_pattern
from postern_screener.checks.hit import Hit, at_start
from postern_screener.checks.owners import Table
from postern_screener.defects import MAX_ADDRESSES

_MAX_DOMAIN: Final = 255  # RFC 5321 section 4.5.3.1.2
_MAX_LOCAL_PART: Final = 130  # RFC 5321 section 4.5.3.1.1 allows 64; quoted and escaped, with a comment behind
_BEFORE_AT: Final = re.compile(r"""("(?:[^"\\]|\\.)*"|[^\s<>,;:()"\[\]@]+)\s*(?:\([^()]*\)\s*)?\Z""")
_COMMENTS: Final = re.compile(r"\s*(?:\([^()]*+\)\s*+)?")
_NAME: Final = r"[\w.\-\u0080-\U0010ffff]"
_DOMAIN: Final = re.compile(rf"\[[^\]\s]*\]|{_NAME}++")
_SPACED_DOMAIN: Final = re.compile(rf"{_NAME}++(?:\s++{_NAME}++)*+")


class SenderCheck:
    """All sender rules in one table: a lookup for each label of a domain, however many patterns there are."""

    def __init__(self, criteria: Iterable[tuple[int, SenderCondition]], lists: Lists | None = None) -> None:
        """`criteria`: number and condition. ValueError for a pattern that is none."""
        self._addresses, self._domains, self._below = Table(), Table(), Table()
        listed = lists or Lists()
        for criterion, condition in criteria:
            for pattern in itertools.chain(condition.patterns, listed.values(condition.lists, ListKind.SENDERS)):
                self._add(criterion, pattern.strip())
        self._has_any = bool(self._addresses or self._domains or self._below)

    def _add(self, criterion: int, pattern: str) -> None:
        local_part, at, domain = pattern.rpartition("@")
        if at and local_part:
            key = _normalise(local_part, normalise_domain(domain))
            self._addresses.add(key, criterion)
            return
        normalised = normalise_pattern(domain)
        if normalised.startswith("*."):
            self._below.add(normalised[2:], criterion)
        else:
            self._domains.add(normalised, criterion)

    def check(self, reverse_path: str, from_fields: Sequence[str]) -> Iterator[Hit]:
        """Hits on the envelope first, then on From:."""
        if not self._has_any:
            return
        sender, _, domain = reverse_path.rpartition("@")
        of_envelope = self._matching(sender, domain) if reverse_path else []
        for criterion in of_envelope:
            yield Hit(criterion, "envelope", at_start(reverse_path))
        for value in from_fields:
            for address in _addresses(value):
                # most mail shows the address that it is sent from
                for criterion in of_envelope if address == (sender, domain) else self._matching(*address):
                    yield Hit(criterion, "header", at_start("@".join(address)))

    def _matching(self, local_part: str, written: str) -> list[int]:
        # longer than any domain: what it ends in still tells whose it is
        written = written[-_MAX_DOMAIN:].rstrip(".-_")
        try:
            domain = normalise_domain(written)
        except ValueError:
            domain = written.casefold()
        found = [*self._addresses.get(_normalise(local_part, domain)), *self._domains.get(domain)]
        if self._below:
            _, dot, rest = domain.partition(".")
            while dot:
                found += self._below.get(rest)
                _, dot, rest = rest.partition(".")
        return found


def _addresses(field_value: str) -> Iterator[tuple[str, str]]:
    """Local-part and domain of everything in the field that looks like an address; one that blanks divide is given in both readings."""
    position = -1
    for _ in range(MAX_ADDRESSES):
        position = field_value.find("@", position + 1)
        if position < 0:
            return
        before = _BEFORE_AT.search(field_value, max(0, position - _MAX_LOCAL_PART), position)
        comments = _COMMENTS.match(field_value, position + 1)
        start = comments.end() if comments else position + 1
        if before is None or (domain := _DOMAIN.match(field_value, start)) is None:
            continue
        yield before[1], domain.group()
        spaced = _SPACED_DOMAIN.match(field_value, start, start + 2 * _MAX_DOMAIN)
        if spaced is not None and spaced.group() != domain.group():
            # `bad .example` and `bad. example`: blanks beside a dot belong to the domain, at any other the domain ends
            yield before[1], re.split(r"\s", re.sub(r"\s*\.\s*", ".", spaced.group()))[0]


def _normalise(local_part: str, domain: str) -> str:
    if local_part.startswith('"'):
        local_part = re.sub(
            r"\\(.)", r"\1", local_part.strip('"')
        )  # RFC 5321 section 4.1.2: the same mailbox without the quoting
    if not local_part.isascii():
        local_part = unicodedata.normalize("NFC", unicodedata.normalize("NFC", local_part).casefold())
    return local_part.casefold() + "@" + domain
