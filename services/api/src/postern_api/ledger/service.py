"""Makes the balance of the sums. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypeVar

from postern_api.ledger.schemas import Balance

Key = TypeVar("Key", str, tuple[datetime, str])  # a gate, or an hour and a gate


def balances(accepted: Mapping[Key, int], ended: Mapping[tuple[Key, str], int]) -> dict[Key, Balance]:
    """One balance for each key, in their order."""
    kinds: defaultdict[Key, dict[str, int]] = defaultdict(dict)
    for (key, kind), number in ended.items():
        kinds[key][kind] = number
    return {
        key: Balance(accepted=accepted[key], in_flight=accepted[key] - sum(kinds[key].values()), **kinds[key])
        for key in sorted(accepted)
    }


def total(books: Iterable[Balance]) -> Balance:
    """The sum of all of them."""
    rows = [book.model_dump() for book in books]
    return Balance(**{name: sum(row[name] for row in rows) for name in Balance.model_fields})
