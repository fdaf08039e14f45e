"""One look at the bus: every stream, its replicas, its consumers, and each broker's store. Changes nothing.

What could not be read is named (`unreadable`, `unseen`), and no alarm is raised or cleared for it: not to know is not to be well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from postern_api.ledger.verification import moment
from postern_core.bus import Bus
from postern_core.bus.publishing import unavailable
from postern_core.bus.stores import Store, read_stores
from postern_core.bus.topology import OUTBOUND, BusLimits, checked_route_name, consumers, delivery_consumer, streams
from postern_core.control import TROUBLED, ServiceStatus
from postern_core.errors import TransientError
from postern_core.policy import OnFailure
from postern_core.settings import BusSettings

STREAMS: Final = tuple(str(config.name) for config in streams(BusLimits()))
CONSUMERS: Final = tuple((stream, str(config.name)) for stream, config in consumers(BusLimits()))
_NO_SUCH: Final = 404
_SAMPLES: Final = 5
_BETWEEN_SAMPLES_S: Final = 0.2
_WHOLE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server that keeps a copy of a stream, as the stream's leader sees it."""

    name: str
    offline: bool
    current: bool
    silent_s: float  # since the leader heard of it
    lag: int  # operations that it is behind


@dataclass(frozen=True, slots=True)
class StreamSeen:
    """A stream as its leader tells."""

    created: str  # another one of the same name has another
    messages: int
    bytes: int
    max_messages: int  # -1: no limit; so is max_bytes
    max_bytes: int
    drops_oldest: bool  # when it is full, instead of refusing
    is_work_queue: bool
    first_seq: int
    last_seq: int
    lost_bytes: int  # that the broker could not read from its disk when it started
    consumers: int
    replicas: int
    peers: tuple[Peer, ...]
    oldest_s: float  # for how long the oldest message has been there; 0 without one

    @property
    def position(self) -> tuple[int, int, int]:
        """The same in two looks: nothing was written in between, and nothing taken."""
        return self.first_seq, self.last_seq, self.messages


@dataclass(frozen=True, slots=True)
class Consumers:
    """The consumers of a stream, against those that it should have."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()  # names, or how many where the api may not read them
    unclaimed: int = 0  # messages of a work queue that no consumer has before it: the least of several counts


@dataclass(frozen=True, slots=True)
class Stale:
    """What a replica runs instead of the policy that is on the bus."""

    revision: int
    newest: int
    refused: str  # why it does not run the newest, where it said so


def stale_replicas(reports: Iterable[ServiceStatus], live: int) -> dict[str, Stale]:
    """Those that report an older revision than `live`, by `<service>/<instance>`; the api itself runs none."""
    return {
        f"{report.service}/{report.instance}": Stale(report.revision, live, report.policy_error)
        for report in reports
        if report.service != "api" and report.revision < live
    }


@dataclass(frozen=True, slots=True)
class EngineDown:
    """An engine that replicas of the screener get no answers from."""

    replicas: tuple[str, ...]
    error: str  # as the first of them tells it
    on_failure: OnFailure


def engines_down(reports: Iterable[ServiceStatus]) -> dict[str, EngineDown]:
    """By engine, from reports that are fresh."""
    found: dict[str, EngineDown] = {}
    for report in reports:
        for each in report.engines:
            if each.state in TROUBLED:
                known = found.get(each.engine.value, EngineDown((), each.error, each.on_failure))
                replicas = (*known.replicas, f"{report.service}/{report.instance}")
                found[each.engine.value] = EngineDown(replicas, known.error, known.on_failure)
    return found


@dataclass(slots=True)
class Look:
    """Everything that was seen. `silent` says why nothing could be."""

    silent: str = ""
    not_storing: str = ""  # why the broker, which answers, stores nothing
    streams: dict[str, StreamSeen] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)  # stream → why
    consumers: dict[str, Consumers] = field(default_factory=dict)  # by stream; absent: not known
    stores: dict[str, Store] = field(default_factory=dict)  # by server
    stale: dict[str, Stale] = field(default_factory=dict)  # by `<service>/<instance>`
    engines_down: dict[str, EngineDown] = field(default_factory=dict)  # by engine
    unseen: tuple[str, ...] = ()  # what else could not be looked at, for people


class Observer:
    """Looks."""

    def __init__(self, bus: Bus, settings: BusSettings, *, not_storing: Callable[[], str]) -> None:
        self._bus = bus
        self._settings = settings
        self._not_storing = not_storing

    async def look(self, routes: Iterable[str]) -> Look:
        """`routes` are those of the policy that is on the bus: each must have its consumer. Takes a minute at most."""
        if not self._bus.connected:
            return Look(silent="the api has no connection to it")
        try:
            async with asyncio.timeout(_WHOLE_S):
                return await self._look([delivery_consumer(route) for route in routes])
        except TimeoutError:
            return Look(silent=f"no whole look in {_WHOLE_S:g} s")

    async def _look(self, route_consumers: list[str]) -> Look:
        look = Look(not_storing=self._not_storing())
        (stores, unseen), _ = await asyncio.gather(
            read_stores(self._settings), asyncio.gather(*(self._stream_into(look, stream) for stream in STREAMS))
        )
        look.stores = {store.server: store for store in stores}
        if not look.streams:
            return Look(silent=next(iter(look.unreadable.values())))
        missed = [*unseen]
        for stream in look.streams:
            expected = [name for of, name in CONSUMERS if of == stream] + (route_consumers if stream == OUTBOUND else [])
            try:
                look.consumers[stream] = await self._consumers(stream, look.streams[stream], expected)
            except TransientError as error:
                missed.append(f"consumers of {stream} ({error.reason})")
        look.unseen = tuple(missed)
        return look

    async def _stream_into(self, look: Look, stream: str) -> None:
        try:
            look.streams[stream] = await self._stream(stream)
        except TransientError as error:
            look.unreadable[stream] = error.reason

    async def _stream(self, stream: str) -> StreamSeen:
        info = await self._bus.api(f"STREAM.INFO.{stream}", {})
        config, state = info["config"], info["state"]
        return StreamSeen(
            created=str(info["created"]),
            messages=int(state["messages"]),
            bytes=int(state["bytes"]),
            max_messages=int(config.get("max_msgs", -1)),
            max_bytes=int(config.get("max_bytes", -1)),
            drops_oldest=config.get("discard") == "old",
            is_work_queue=config.get("retention") == "workqueue",
            first_seq=int(state["first_seq"]),
            last_seq=int(state["last_seq"]),
            lost_bytes=int((state.get("lost") or {}).get("bytes", 0)),
            consumers=int(state.get("consumer_count", 0)),
            replicas=int(config.get("num_replicas", 1)),
            peers=tuple(map(_peer, (info.get("cluster") or {}).get("replicas") or ())),
            oldest_s=(datetime.now(UTC) - moment(str(state["first_ts"]))).total_seconds() if int(state["messages"]) else 0.0,
        )

    # -- consumers

    async def _consumers(self, stream: str, seen: StreamSeen, expected: list[str]) -> Consumers:
        if stream == OUTBOUND:
            there = await self._bus.consumer_names(stream)
            unexpected = tuple(sorted(name for name in there if not _feeds_a_route(name)))
        else:
            there = [name for name in expected if await self._consumer(stream, name) is not None]
            more = seen.consumers - len(there)
            unexpected = (f"{more} more",) if more > 0 else ()
        return Consumers(
            missing=tuple(name for name in expected if name not in there),
            unexpected=unexpected,
            unclaimed=await self._unclaimed(stream, there) if seen.is_work_queue else 0,
        )

    async def _unclaimed(self, stream: str, names: list[str]) -> int:
        """Messages that no consumer knows, in the least of several counts: stream and consumers cannot be read at one moment.

        Counting ends with the first that finds none. The stream is counted before and after its consumers, and the smaller number taken, so
        that neither what comes nor what goes meanwhile makes a difference.
        """
        least = 0
        for sample in range(_SAMPLES):
            if sample:
                await asyncio.sleep(_BETWEEN_SAMPLES_S)
            before = (await self._stream(stream)).messages
            known = sum(await asyncio.gather(*(self._claimed(stream, name) for name in names)))
            after = (await self._stream(stream)).messages
            unclaimed = min(before, after) - known
            if unclaimed <= 0:
                return 0
            least = unclaimed if sample == 0 else min(least, unclaimed)
        return least

    async def _claimed(self, stream: str, name: str) -> int:
        info = await self._consumer(stream, name)
        return int(info["num_pending"]) + int(info["num_ack_pending"]) if info is not None else 0

    async def _consumer(self, stream: str, name: str) -> dict[str, Any] | None:
        """None when there is no such consumer."""
        call = f"CONSUMER.INFO.{stream}.{name}"
        answer = await self._bus.api(call, {}, tolerate_error=True)
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("code") == _NO_SUCH:
            return None
        raise unavailable(f"{call}: {error.get('description', error)}")


def _peer(replica: dict[str, Any]) -> Peer:
    return Peer(
        name=str(replica["name"]),
        offline=bool(replica.get("offline", False)),
        current=bool(replica.get("current", False)),
        silent_s=int(replica.get("active", 0)) / 1e9,
        lag=int(replica.get("lag", 0)),
    )


def _feeds_a_route(consumer: str) -> bool:
    """A consumer of a route that the policy no longer has stays: it may hold mail."""
    try:
        return consumer == delivery_consumer(checked_route_name(consumer.removeprefix(delivery_consumer(""))))
    except ValueError:
        return False
