"""Each broker's own store, as its monitoring port shows it: how full it is, and what its copy of each stream holds.

The JetStream API speaks for the leader of a stream alone; to see whether the other copies hold the same, every server must be asked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from postern_core.broker.permissions import STREAMS_ACCOUNT
from postern_core.bus.broker_check import MONITOR_ERRORS, read_monitor
from postern_core.settings import BusSettings


@dataclass(frozen=True, slots=True)
class Copy:
    """What one server has of a stream."""

    messages: int
    first_seq: int
    last_seq: int
    deleted: int  # gaps between the first and the last


@dataclass(frozen=True, slots=True)
class Store:
    """One server's store. `copies` is by stream."""

    server: str
    used_bytes: int
    limit_bytes: int
    copies: dict[str, Copy]


class _State(msgspec.Struct):
    messages: int = 0
    first_seq: int = 0
    last_seq: int = 0
    num_deleted: int = 0


class _Stream(msgspec.Struct):
    name: str
    state: _State


class _Account(msgspec.Struct):
    name: str
    stream_detail: list[_Stream] = msgspec.field(default_factory=list)


class _Config(msgspec.Struct):
    max_storage: int = 0


class _Jsz(msgspec.Struct):
    """What we read of a server's /jsz."""

    storage: int = 0
    config: _Config = msgspec.field(default_factory=_Config)
    account_details: list[_Account] = msgspec.field(default_factory=list)


class _Varz(msgspec.Struct):
    server_name: str


async def read_stores(settings: BusSettings) -> tuple[list[Store], list[str]]:
    """The stores of all servers that answer, and the monitoring addresses of those that do not."""
    urls = [url.strip().rstrip("/") for url in settings.nats_monitor_url.split(",")]
    found = await asyncio.gather(*(asyncio.to_thread(_read, url) for url in urls))
    return [store for store in found if store], [url for url, store in zip(urls, found, strict=True) if store is None]


def _read(url: str) -> Store | None:
    try:
        name = read_monitor(f"{url}/varz", _Varz).server_name
        jsz = read_monitor(f"{url}/jsz?acc={STREAMS_ACCOUNT}&streams=true", _Jsz)
    except MONITOR_ERRORS:
        return None
    streams = [stream for account in jsz.account_details if account.name == STREAMS_ACCOUNT for stream in account.stream_detail]
    copies = {
        stream.name: Copy(stream.state.messages, stream.state.first_seq, stream.state.last_seq, stream.state.num_deleted)
        for stream in streams
    }
    return Store(name, jsz.storage, jsz.config.max_storage, copies)
