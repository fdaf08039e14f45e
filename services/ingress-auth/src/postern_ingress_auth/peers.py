"""Carries what the replicas tell each other (shared.py) over core NATS, inside this service's own broker account.

Fails open: nothing is stored, nobody waits for it, and without the bus each replica goes on with what it knows. After a reconnect, and
when it starts, a replica asks the others for all they know, and tells what it knows itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from postern_core.accounts import PEERS_SUBJECT, AccountNews
from postern_core.bus import Bus
from postern_core.contract import decode
from postern_ingress_auth.shared import Shared

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_TELL_EVERY_S: Final = 0.5
_MOST_WAITING: Final = 10_000  # pieces of news; what comes on top is not told


class Peers:
    """See the module."""

    def __init__(self, bus: Bus, shared: Shared) -> None:
        self._bus = bus
        self._shared = shared
        self._waiting: list[AccountNews] = []
        self._wake = asyncio.Event()
        self._is_asked = False
        self._is_back = True
        shared.on_news = self._tell

    async def run(self, stop: asyncio.Event) -> None:
        """Tell and listen until `stop`."""
        subscription = await self._bus.client.listen(PEERS_SUBJECT, self._hear)
        self._bus.on_reconnect.add(self._came_back)
        try:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TELL_EVERY_S):
                        await self._wake.wait()
                self._wake.clear()
                await self._publish()
        finally:
            self._bus.on_reconnect.discard(self._came_back)
            if self._bus.connected:
                await subscription.unsubscribe()

    def _tell(self, news: AccountNews) -> None:
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(news)
            self._wake.set()

    def _came_back(self) -> None:
        self._is_back = self._is_asked = True
        self._wake.set()

    def _hear(self, msg: Msg) -> None:
        try:
            news = decode(msg.data, AccountNews)
        except ValueError as error:  # a newer replica's, during an upgrade
            log.warning("account_news.unreadable", reason=str(error))
            return
        if news.origin == self._shared.origin:
            return
        self._shared.hear(news)
        if news.asks:
            self._is_asked = True
            self._wake.set()

    async def _publish(self) -> None:
        told, self._waiting = self._waiting, []
        if (untold := self._shared.untold()) is not None:
            told.append(untold)
        if self._is_asked:
            self._is_asked = False
            told += self._shared.everything()
        if self._is_back:
            told.append(AccountNews(origin=self._shared.origin, asks=True))
        try:
            for news in told:
                await self._bus.client.publish(PEERS_SUBJECT, msgspec.json.encode(news))
        except (nats.errors.Error, OSError) as error:
            log.info("account_news.not_told", lost=len(told), reason=type(error).__name__)
            return  # what it came back to is asked for again
        self._is_back = False
