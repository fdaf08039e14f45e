"""Refuses a broker that would acknowledge mail before it is on disk.

JetStream flushes every two minutes by default and acknowledges before that. `varz.jetstream.config.sync_always` is true only when
`sync_interval: always` is set; the field is absent otherwise. It is read from the monitoring port of every server.
The store's folder is read there, too: without `store_dir` it is a temporary one, which the next boot empties. And what it takes and keeps waiting for a
client, where a wrong number would not show until there is large mail: that is refused again and again, or ends one connection after another.
"""

from __future__ import annotations

import asyncio
import http.client
import urllib.request
from typing import TypeVar

import msgspec
import structlog
from nats.aio.client import Client as NatsClient

from postern_core.bus.window import LEAST_PENDING_BYTES, MOST_HEAD_BYTES
from postern_core.errors import ConfigurationError
from postern_core.settings import BusSettings, Unconfirmed

log: structlog.stdlib.BoundLogger = structlog.get_logger()
T = TypeVar("T")

OLDEST_BROKER = (2, 12, 5)
# where a server keeps mail that was not told where: <the folder for temporary files>/nats, and `jetstream` below
_TEMPORARY_STORES = ("/tmp/nats/jetstream", "/var/tmp/nats/jetstream")  # noqa: S108  (to be refused)
MONITOR_ERRORS = (OSError, ValueError, http.client.HTTPException, msgspec.DecodeError)
_TIMEOUT_S = 3.0
_TRIES = 10
# never through a proxy that the environment names: the port is on the broker's own network
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class _Config(msgspec.Struct):
    sync_always: bool = False
    max_storage: int = 0
    store_dir: str = ""


class _JetStream(msgspec.Struct):
    config: _Config | None = None


class _Varz(msgspec.Struct):
    """What we read of a server's /varz."""

    server_id: str
    jetstream: _JetStream = msgspec.field(default_factory=_JetStream)
    max_payload: int | None = None  # octets of a message
    max_pending: int | None = None  # octets that may wait for a client


class CannotBeAskedError(ConfigurationError):
    """No answer from the monitoring port: the broker may be right or wrong."""


async def confirm_broker(settings: BusSettings, client: NatsClient) -> None:
    """ConfigurationError when a broker is too old, does not sync, keeps mail in a temporary folder, has no room for our largest messages, or cannot
    be asked (and the settings do not allow that)."""
    version = client.connected_server_version
    if (version.major, version.minor, version.patch) < OLDEST_BROKER:
        oldest = ".".join(map(str, OLDEST_BROKER))
        raise ConfigurationError(
            f"nats-server {version.major}.{version.minor}.{version.patch} is too old: {oldest} is the oldest that keeps mail safe"
        )
    for url in settings.nats_monitor_url.split(","):
        await _confirm_one(url.strip().rstrip("/"), settings)


async def store_bytes(settings: BusSettings) -> int | None:
    """The size of the broker's store (the smallest of a cluster) in bytes; None when no monitoring port answers."""
    sizes = []
    for url in settings.nats_monitor_url.split(","):
        try:
            varz = await _read_varz(url.strip().rstrip("/"))
        except CannotBeAskedError as error:
            log.warning("broker.store_unknown", reason=str(error))
            return None
        sizes.append(varz.jetstream.config.max_storage if varz.jetstream.config else 0)
    return min(sizes) or None


async def _confirm_one(url: str, settings: BusSettings) -> None:
    try:
        varz = await _read_varz(url)
    except CannotBeAskedError as error:
        if settings.broker_sync_unconfirmed is Unconfirmed.REFUSE:
            raise
        log.warning("broker.sync_unconfirmed", reason=str(error))
        return
    if varz.jetstream.config is None:
        raise ConfigurationError(f"the broker at {url} runs without JetStream: enable `jetstream` in its configuration")
    if not varz.jetstream.config.sync_always:
        raise ConfigurationError(
            f"the broker at {url} acknowledges before it syncs: set `sync_interval: always` in its `jetstream` block"
        )
    if varz.jetstream.config.store_dir in _TEMPORARY_STORES:
        raise ConfigurationError(
            f"the broker at {url} keeps mail in {varz.jetstream.config.store_dir}, which may be emptied when the machine starts: "
            "set `store_dir` in its `jetstream` block"
        )
    needed = settings.inline_limit_bytes + MOST_HEAD_BYTES
    if varz.max_payload is not None and varz.max_payload < needed:
        raise ConfigurationError(
            f"the broker at {url} takes messages of up to {varz.max_payload} bytes, and POSTERN_INLINE_LIMIT_BYTES={settings.inline_limit_bytes} "
            f"needs {needed}: set `max_payload: 8MB` in its configuration"
        )
    if varz.max_pending is not None and varz.max_pending < LEAST_PENDING_BYTES:
        raise ConfigurationError(
            f"the broker at {url} hangs up on a client for which {varz.max_pending} bytes wait: set `max_pending: 64MB`, its default, in its configuration"
        )


async def _read_varz(url: str) -> _Varz:
    """The server's /varz. The port may open a moment after the client port, so a refusal is tried again for a while."""
    failure: Exception | None = None
    for _ in range(_TRIES):
        try:
            return await asyncio.to_thread(read_monitor, f"{url}/varz", _Varz)
        except MONITOR_ERRORS as error:
            failure = error
        await asyncio.sleep(0.3)
    raise CannotBeAskedError(
        f"cannot confirm that the broker syncs before it acknowledges: {url}/varz does not answer ({failure}). "
        "Set POSTERN_NATS_MONITOR_URL to its monitoring port, or POSTERN_BROKER_SYNC_UNCONFIRMED=allow to take the risk"
    )


def read_monitor(url: str, kind: type[T]) -> T:
    """What a monitoring port answers at `url`, read as `kind`; blocks for a few seconds at most. One of `MONITOR_ERRORS` when it does not."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url} is not an HTTP address")
    with _open(url, timeout=_TIMEOUT_S) as answer:
        return msgspec.json.decode(answer.read(), type=kind)
