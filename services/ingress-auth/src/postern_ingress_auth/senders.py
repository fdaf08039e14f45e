"""Which reverse-paths are a user's own: addresses, domains and `*.domain`, all of them caseless. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from postern_core.policy import DomainTable


class SenderList:
    """The patterns of one user, as postern_api has normalised them."""

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = tuple(patterns)
        self.is_empty = not patterns
        self._addresses = frozenset(pattern.casefold() for pattern in patterns if "@" in pattern)
        self._domains = DomainTable((pattern, True) for pattern in patterns if "@" not in pattern)

    def holds(self, address: str) -> bool:
        """Whether `address` (its domain in lower case) is one of them."""
        return address.casefold() in self._addresses or self._domains.find(address.rpartition("@")[2]) is not None
