"""Connection control: which clients may come in, by address, by network and by verified name. Pure.

The first entry that fits decides. An entry with a name fits only a name that was verified (reverse_dns.py); names are looked up only when an entry
with a name could decide. When DNS does not answer, it is not known whether such entries fit: if one of them would let in whom the rest of the list
turns away, he is asked to come again (421), since honest mail must not bounce for want of an answer. If one of them would turn him away, he comes in:
whoever is to be kept out owns his reverse DNS, and needs no failure of it to have no name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from postern_core.errors import Reply
from postern_core.policy import AccessAction, ListenerAccess
from postern_core.policy.domains import normalise_pattern
from postern_core.policy.networks import NetworkTable, parse_address, parse_network
from postern_smtp import replies

_NEVER: Final = 1 << 30


def is_name(who: str) -> bool:
    """Whether an entry's `who` is a host's name, not an address or a network."""
    return "/" not in who and parse_address(who) is None


class AccessList:
    """One policy revision's list, compiled. ValueError for an entry that is nothing."""

    def __init__(self, access: ListenerAccess) -> None:
        self._actions = [*(entry.action for entry in access.entries), access.otherwise]
        self._last = len(access.entries)
        whos = [entry.who for entry in access.entries]
        self._networks = NetworkTable((place, parse_network(who)) for place, who in enumerate(whos) if not is_name(who))
        self._names: dict[str, int] = {}
        for place, who in enumerate(whos):
            if is_name(who):
                self._names.setdefault(normalise_pattern(who), place)
        self._first_name = min(self._names.values(), default=_NEVER)
        self._is_open = not whos and access.otherwise is AccessAction.ALLOW

    @property
    def has_names(self) -> bool:
        return bool(self._names)

    def by_address(self, client_address: str) -> AccessAction | None:
        """The decision; None when it depends on the client's name."""
        if self._is_open:
            return AccessAction.ALLOW
        place = self._by_network(client_address)
        return self._actions[place] if place < self._first_name else None

    def lets_in(self, client_address: str, names: Iterable[str]) -> bool:
        """Whether an entry lets the client in by its address or its verified names, not only what holds for the rest."""
        place = min([self._by_network(client_address), *map(self._by_name, names)])
        return place < self._last and self._actions[place] is AccessAction.ALLOW

    def by_names(self, client_address: str, names: Iterable[str]) -> AccessAction:
        """The decision for a client whose verified names are `names`."""
        return self._actions[min([self._by_network(client_address), *map(self._by_name, names)])]

    def without_names(self, client_address: str) -> Reply | None:
        """The refusal of a client whose names nobody could tell, None for none."""
        place = self._by_network(client_address)
        if self._actions[place] is AccessAction.ALLOW:
            return None
        might_enter = any(before < place and self._actions[before] is AccessAction.ALLOW for before in self._names.values())
        return replies.NAME_UNKNOWN if might_enter else replies.ACCESS_DENIED

    def _by_network(self, client_address: str) -> int:
        address = parse_address(client_address)
        place = self._networks.find(address) if address is not None and self._networks else None
        return self._last if place is None else place

    def _by_name(self, name: str) -> int:
        places = [self._names.get(name, _NEVER)]
        rest = name
        while "." in rest:
            rest = rest.partition(".")[2]
            places.append(self._names.get(f"*.{rest}", _NEVER))
        return min(places)
