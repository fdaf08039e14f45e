"""Whose turn it is to ask: so many questions at once, so many to one whom they ask, and so many of one client. First come, first served,
but whoever has reached his share does not hold up the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from postern_core.policy import ListenerVerification


@dataclass(frozen=True, slots=True)
class _Waiting:
    asked: str
    client: str
    settings: ListenerVerification
    turn: asyncio.Future[None]


class Turns:
    """See the module."""

    def __init__(self) -> None:
        self._total = 0
        self._to: Counter[str] = Counter()
        self._of: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []

    @asynccontextmanager
    async def turn(self, asked: str, client: str, settings: ListenerVerification) -> AsyncIterator[None]:
        """Waits until it may be asked, as long as the caller lets it."""
        waiting = _Waiting(asked, client, settings, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._let_in()
        try:
            await waiting.turn
            yield
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif waiting.turn.done():
                self._count(waiting, -1)
            self._let_in()

    def _let_in(self) -> None:
        still: list[_Waiting] = []
        for waiting in self._waiting:
            if not waiting.turn.done() and self._has_room(waiting):
                self._count(waiting, 1)
                waiting.turn.set_result(None)
            else:
                still.append(waiting)
        self._waiting = still

    def _has_room(self, waiting: _Waiting) -> bool:
        settings = waiting.settings
        return (
            self._total < settings.max_at_once
            and self._to[waiting.asked] < settings.max_at_once_per_route
            and self._of[waiting.client] < settings.max_at_once_per_client
        )

    def _count(self, waiting: _Waiting, number: int) -> None:
        self._total += number
        for counter, key in ((self._to, waiting.asked), (self._of, waiting.client)):
            counter[key] += number
            if not counter[key]:
                del counter[key]
