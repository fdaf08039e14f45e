"""Carries what the replicas know of greylisting (greylist.py): to each other by core NATS inside this service's own broker account, and to themselves
over a restart by a file in `state_dir`.

Fails open for nobody and closed for nobody: without the bus each replica goes on with what it knows, and a client is asked to come again once more.
When it starts and after a reconnect a replica asks the others for all they know. The file is written once a minute when something changed, and at
the end; without `state_dir` a restart of all replicas at once forgets everybody.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from postern_core.bus import Bus
from postern_core.contract import decode
from postern_core.greylist import GREYLIST_SUBJECT, GreylistNews, SeenClient, SeenTriplet
from postern_ingress_anon.greylist import Greylist

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_GATHER_S: Final = 0.2  # news that comes in this time is told together
_MOST_WAITING: Final = 2000  # rows, of each kind; what comes on top is not told
_WRITE_EVERY_S: Final = 60.0
_FILE: Final = "greylist.bin"


class Kept(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The file (MessagePack)."""

    written_at: float  # seconds since the epoch
    news: tuple[GreylistNews, ...]


class GreylistPeers:
    """See the module."""

    def __init__(self, bus: Bus, greylist: Greylist, state_dir: Path | None) -> None:
        self._bus = bus
        self._greylist = greylist
        self._file = state_dir / _FILE if state_dir else None
        self._triplets: list[SeenTriplet] = []
        self._clients: list[SeenClient] = []
        self._wake = asyncio.Event()
        self._is_asked = False
        self._is_back = True
        self._has_changed = False
        greylist.on_news = self._note

    async def run(self, stop: asyncio.Event) -> None:
        """Tell, listen and write until `stop`."""
        await self._read()
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(self._tell(), name="greylist-peers")
            writing = tasks.create_task(self._write_often(), name="greylist-file")
            await stop.wait()
            telling.cancel()
            writing.cancel()
        await self._write()

    # --- among replicas

    async def _tell(self) -> None:
        subscription = await self._bus.client.listen(GREYLIST_SUBJECT, self._hear)
        self._bus.on_reconnect.add(self._came_back)
        try:
            while True:
                await self._publish()
                await self._wake.wait()
                await asyncio.sleep(_GATHER_S)
                self._wake.clear()
        finally:
            self._bus.on_reconnect.discard(self._came_back)
            if self._bus.connected:
                await subscription.unsubscribe()

    def _note(self, seen: SeenTriplet | SeenClient) -> None:
        self._has_changed = True
        if isinstance(seen, SeenTriplet):
            if len(self._triplets) < _MOST_WAITING:
                self._triplets.append(seen)
        elif len(self._clients) < _MOST_WAITING:
            self._clients.append(seen)
        self._wake.set()

    def _came_back(self) -> None:
        self._is_back = self._is_asked = True
        self._wake.set()

    def _hear(self, msg: Msg) -> None:
        try:
            news = decode(msg.data, GreylistNews)
        except ValueError as error:  # a newer replica's, during an upgrade
            log.warning("greylist_news.unreadable", reason=str(error))
            return
        if news.origin == self._greylist.origin:
            return
        self._has_changed = True
        self._greylist.hear(news, time.time())
        if news.asks:
            self._is_asked = True
            self._wake.set()

    async def _publish(self) -> None:
        (triplets, self._triplets), (clients, self._clients) = (self._triplets, []), (self._clients, [])
        told = []
        if triplets or clients:
            told.append(GreylistNews(origin=self._greylist.origin, triplets=tuple(triplets), clients=tuple(clients)))
        if self._is_asked:
            self._is_asked = False
            told += self._greylist.everything(time.time())
        if self._is_back:
            told.append(GreylistNews(origin=self._greylist.origin, asks=True))
        try:
            for news in told:
                await self._bus.client.publish(GREYLIST_SUBJECT, msgspec.json.encode(news))
        except (nats.errors.Error, OSError) as error:
            log.info("greylist_news.not_told", lost=len(told), reason=type(error).__name__)
            return  # when the bus is back, all is told and asked for again
        self._is_back = False

    # --- over a restart

    async def _read(self) -> None:
        if self._file is None:
            return
        try:
            kept = msgspec.msgpack.decode(await asyncio.to_thread(self._file.read_bytes), type=Kept)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("greylist.not_read", reason=str(error))
            return
        for news in kept.news:
            self._greylist.hear(news, kept.written_at)

    async def _write_often(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_EVERY_S)
            await self._write()

    async def _write(self) -> None:
        if self._file is None or not self._has_changed:
            return
        self._has_changed = False
        now = time.time()
        kept = Kept(written_at=now, news=tuple(self._greylist.everything(now)))
        try:
            await asyncio.to_thread(_write_file, self._file, kept)
        except OSError as error:
            self._has_changed = True
            log.warning("greylist.not_written", reason=str(error))


def _write_file(path: Path, kept: Kept) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own: replicas of a service may share the folder
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as fresh:
        fresh.write(msgspec.msgpack.encode(kept))
        fresh.flush()
        os.fsync(fresh.fileno())
    Path(fresh.name).replace(path)
