"""Makes the balance of the sums. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from postern_api.ledger.schemas import Balance


def balances(accepted: Mapping[str, int], ended: Mapping[tuple[str, str], int]) -> dict[str, Balance]:
    """One balance for each gate."""
    books = {}
    for gate, number in sorted(accepted.items()):
        kinds = {kind: count for (of_gate, kind), count in ended.items() if of_gate == gate}
        books[gate] = Balance(accepted=number, in_flight=number - sum(kinds.values()), **kinds)
    return books


def total(books: Iterable[Balance]) -> Balance:
    """The sum of all gates."""
    rows = [book.model_dump() for book in books]
    return Balance(**{name: sum(row[name] for row in rows) for name in Balance.model_fields})
