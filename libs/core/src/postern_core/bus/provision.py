"""Creates streams, buckets and consumers. Run before the services start: `python -m postern_core.bus.provision`.

Idempotent: what is there is brought to the settings of `topology`. A stream that existed once and is missing now is an alarm, not a
reason to create an empty one silently: it ends with an error unless `POSTERN_RECREATE_MISSING=true`. A limit is never lowered below
what a stream holds, since the broker might make room by discarding mail: it stays as it is, with a warning.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import nats.errors
import structlog
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import APIError, NotFoundError
from pydantic import Field

from postern_core.broker.names import PROVISIONER
from postern_core.bus.broker_check import store_bytes
from postern_core.bus.connection import Bus, connect
from postern_core.bus.topology import (
    KV_POLICY,
    OUTBOUND,
    BusLimits,
    consumers,
    delivery_consumer,
    is_route_name,
    route_consumer,
    streams,
)
from postern_core.errors import ConfigurationError
from postern_core.settings import BusSettings, load
from postern_core.telemetry import configure_logging

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CREATED_KEY = "streams-created"


class ProvisionSettings(BusSettings):
    """Sizes in bytes and times in seconds of the bus."""

    nats_user: str = PROVISIONER
    bus_replicas: int = Field(default=1, ge=1, le=5, description="Copies of each stream; 3 on a cluster.")
    bus_scale: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="Factor for the size limits of all streams, 44 GiB in all at 1; less where the broker's store is smaller.",
    )
    ack_wait_s: float = Field(
        default=30.0,
        ge=30,
        le=600,
        # the screener works on a message for up to twenty seconds without a word to the broker
        description="Seconds until the work of a dead replica is given to another.",
    )
    archive_hours: int = Field(
        default=48,
        ge=1,
        le=720,
        description="Hours that copies of screened mail stay in the archive, where the policy keeps one; 2 GiB at most.",
    )
    recreate_missing: bool = Field(default=False, description="Create streams anew that existed once; their mail is gone.")

    def limits(self) -> BusLimits:
        """The topology's defaults with these settings applied."""
        wait = timedelta(seconds=self.ack_wait_s)
        return replace(
            BusLimits().scaled(self.bus_scale),
            replicas=self.bus_replicas,
            archive_age=timedelta(hours=self.archive_hours),
            screening_ack_wait=wait,
            delivery_ack_wait=wait,
            recorder_ack_wait=wait,
        )


async def provision(bus: Bus, limits: BusLimits, *, recreate_missing: bool = False) -> None:
    """Bring the broker to `limits`. ConfigurationError when a stream is missing that existed."""
    wanted = streams(limits)
    missing = [config for config in wanted if not await _update(bus, config)]
    known = await _created_before(bus) if not any(c.name == f"KV_{KV_POLICY}" for c in missing) else {}
    lost = sorted(str(config.name) for config in missing if config.name in known)
    if lost and not recreate_missing:
        raise ConfigurationError(
            f"streams {', '.join(lost)} existed and are gone: restore the broker's store, or set POSTERN_RECREATE_MISSING=true "
            "to begin with empty ones (what they held is lost)"
        )
    for config in missing:
        await bus.jetstream.add_stream(config)
        log.info("stream.created", stream=config.name)
    for stream, consumer in consumers(limits):
        await ensure_consumer(bus, stream, consumer)
    for name in await bus.consumer_names(OUTBOUND):
        # those of the routes, which the api makes one by one: whoever changed one by hand may have made it give mail up
        route = name.removeprefix(delivery_consumer(""))
        if is_route_name(route) and delivery_consumer(route) == name:
            await ensure_route(bus, route, limits)
    if missing:
        await _note_created(bus, known | {str(config.name): datetime.now(UTC).isoformat() for config in missing})


def fitting(limits: BusLimits, store: int | None) -> BusLimits:
    """`limits`, scaled down where the broker's store (bytes; None: unknown) has no room for all streams at their fullest.

    A tenth is left over for the buckets and the broker's own files.
    """
    if store is None or limits.total_bytes <= store * 0.9:
        return limits
    scaled = limits.scaled(store * 0.9 / limits.total_bytes)
    log.info("limits.scaled_to_store", store_bytes=store, total_bytes=scaled.total_bytes)
    return scaled


async def ensure_route(bus: Bus, route: str, limits: BusLimits) -> None:
    """Create the consumer that feeds `route` when there is none."""
    await ensure_consumer(bus, OUTBOUND, route_consumer(route, limits))


async def ensure_consumer(bus: Bus, stream: str, config: ConsumerConfig) -> None:
    """Create or update a durable consumer; it is never deleted first."""
    await bus.jetstream.add_consumer(stream, config)


async def _update(bus: Bus, config: StreamConfig) -> bool:
    """False when the stream does not exist."""
    name = str(config.name)
    try:
        info = await bus.jetstream.stream_info(name)
    except NotFoundError:
        return False
    if config.max_bytes is not None and 0 < config.max_bytes < info.state.bytes:
        # a disk that has filled up since must not keep what is stored from moving on: no error, but no lower limit either
        log.warning("limit.kept", stream=name, held_bytes=info.state.bytes, wanted_bytes=config.max_bytes)
        config = config.evolve(max_bytes=info.config.max_bytes)
    try:
        # the note of what was created (`_note_created`) is metadata, and an update replaces it
        await bus.jetstream.update_stream(config.evolve(metadata=info.config.metadata))
    except APIError as error:
        raise ConfigurationError(f"stream {name} cannot be brought to its settings: {error.description}") from error
    return True


async def _created_before(bus: Bus) -> dict[str, str]:
    info = await bus.jetstream.stream_info(f"KV_{KV_POLICY}")
    note = (info.config.metadata or {}).get(_CREATED_KEY, "{}")
    created: dict[str, str] = json.loads(note)
    return created


async def _note_created(bus: Bus, created: dict[str, str]) -> None:
    # kept as metadata of the one bucket without which there is no policy, so that the provisioner needs no right to any content
    info = await bus.jetstream.stream_info(f"KV_{KV_POLICY}")
    await bus.jetstream.update_stream(info.config.evolve(metadata={_CREATED_KEY: json.dumps(created)}))


async def _main(settings: ProvisionSettings) -> None:
    bus = await connect(settings, PROVISIONER)
    try:
        limits = fitting(settings.limits(), await store_bytes(settings))
        await provision(bus, limits, recreate_missing=settings.recreate_missing)
    finally:
        await bus.close()


def main() -> int:
    """Exit code 0 done, 78 a setting or the broker's state is wrong, 69 the broker does not answer."""
    settings = load(ProvisionSettings)
    configure_logging(PROVISIONER, settings.instance, settings.log_level, settings.log_format)
    try:
        asyncio.run(_main(settings))
    except ConfigurationError as error:
        print(f"postern: {PROVISIONER}: {error}", file=sys.stderr)
        return 78
    except (nats.errors.Error, OSError) as error:
        print(f"postern: {PROVISIONER}: the broker at {settings.nats_url} does not answer: {error}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
