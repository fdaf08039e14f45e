"""Greylisting's memory: who was seen when. Pure: it is given `now` (seconds since the epoch) and the rules.

What has not come again yet is kept apart from what has, so that a flood of strangers makes strangers forgotten, and nobody else. Each of the three
kinds is bounded; whoever was seen least recently goes first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from postern_core.greylist import GreylistNews, SeenClient, SeenTriplet
from postern_core.policy import ListenerGreylisting

MOST_REMEMBERED: Final = 50_000  # of each kind
_TOLD_AGAIN_S: Final = 3600.0  # that somebody is still there
_AT_ONCE: Final = 2000  # rows of one piece of news, which must fit a broker message
K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class _Triplet:
    first: float
    last: float


@dataclass(slots=True)
class _Client:
    times: int
    last: float


class Greylist:
    """`origin` names this replica. `on_news` is called with what the others have to know."""

    def __init__(self, origin: str, *, most: int = MOST_REMEMBERED) -> None:
        self.origin = origin
        self.on_news: Callable[[SeenTriplet | SeenClient], None] = lambda _: None
        self._most = most
        self._strangers: OrderedDict[bytes, float] = OrderedDict()  # when they came first
        self._known: OrderedDict[bytes, _Triplet] = OrderedDict()
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def passes(self, network: str, reverse_path: str, forward_path: str, now: float, rules: ListenerGreylisting) -> bool:
        """Whether mail is taken now; False: the client has to come again."""
        if self._is_whitelisted(network, now, rules):
            return True
        key = triplet_key(network, reverse_path, forward_path)
        known = self._known.get(key)
        if known is not None and now - known.last <= rules.known_s:
            if now - known.last > _TOLD_AGAIN_S:
                self.on_news(SeenTriplet(key, max(now - known.first, 0.0), 0.0, came_again=True))
                known.last = now
            self._known.move_to_end(key)
            return True
        first = self._strangers.get(key)
        if first is None or now - first > rules.retry_window_s:
            self._keep(self._strangers, key, now)
            self.on_news(SeenTriplet(key, 0.0, 0.0, came_again=False))
            return False
        if now - first < rules.delay_s:
            return False
        self._came_again(network, key, first, now)
        return True

    def _is_whitelisted(self, network: str, now: float, rules: ListenerGreylisting) -> bool:
        client = self._clients.get(network)
        if client is None or rules.whitelist_after is None:
            return False
        if client.times < rules.whitelist_after or now - client.last > rules.known_s:
            return False
        if now - client.last > _TOLD_AGAIN_S:
            client.last = now
            self.on_news(SeenClient(network, client.times, 0.0))
        self._clients.move_to_end(network)
        return True

    def _came_again(self, network: str, key: bytes, first: float, now: float) -> None:
        self._strangers.pop(key, None)
        self._keep(self._known, key, _Triplet(first, now))
        before = self._clients.get(network)
        times = before.times + 1 if before is not None else 1
        self._keep(self._clients, network, _Client(times, now))
        self.on_news(SeenTriplet(key, max(now - first, 0.0), 0.0, came_again=True))
        self.on_news(SeenClient(network, times, 0.0))

    def hear(self, news: GreylistNews, now: float) -> None:
        """What another replica, or a file, knows: who was seen earlier, later or more often counts."""
        for seen in news.triplets:
            first, last = now - seen.first_age_s, now - seen.last_age_s
            known = self._known.get(seen.key)
            stranger = self._strangers.get(seen.key)
            if seen.came_again:
                self._strangers.pop(seen.key, None)
                was = known or _Triplet(first, last)
                self._keep(self._known, seen.key, _Triplet(min(first, was.first), max(last, was.last)))
            elif known is None:
                # the later: one of them may have begun anew, because the window was over
                self._keep(self._strangers, seen.key, first if stranger is None else max(first, stranger))
        for client in news.clients:
            own = self._clients.get(client.network) or _Client(0, 0.0)
            last = max(now - client.last_age_s, own.last)
            self._keep(self._clients, client.network, _Client(max(client.times, own.times), last))

    def everything(self, now: float) -> Iterator[GreylistNews]:
        """All that is known, the least recent first."""
        triplets = [
            SeenTriplet(key, max(now - first, 0.0), max(now - first, 0.0), False) for key, first in self._strangers.items()
        ]
        triplets += [
            SeenTriplet(key, max(now - each.first, 0.0), max(now - each.last, 0.0), True) for key, each in self._known.items()
        ]
        clients = [SeenClient(network, each.times, max(now - each.last, 0.0)) for network, each in self._clients.items()]
        for start in range(0, max(len(triplets), len(clients)), _AT_ONCE):
            piece = slice(start, start + _AT_ONCE)
            yield GreylistNews(origin=self.origin, triplets=tuple(triplets[piece]), clients=tuple(clients[piece]))

    def _keep(self, memory: OrderedDict[K, V], key: K, value: V) -> None:
        memory[key] = value
        memory.move_to_end(key)
        while len(memory) > self._most:
            memory.popitem(last=False)


def triplet_key(network: str, reverse_path: str, forward_path: str) -> bytes:
    """Caseless: a capital letter makes nobody a stranger."""
    text = "\0".join((network, reverse_path.casefold(), forward_path.casefold()))
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
