"""The object graph of delivery, its tasks, and their end.

Starts to pull once a policy is loaded; the database may come later, or go and come back. On `stop` nothing new is taken, what is in hand
is finished or handed back, and what tells others about it (events, status) ends last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Final

import structlog

from postern_core.bus import BodyStore, Bus, DispositionLog, EventSink, PolicyWatch, StatusReporter
from postern_core.counters import GaugeName, Labelled
from postern_core.heap import keep_large_blocks
from postern_core.ids import new_queue_id
from postern_core.policy import DeliveryPolicy, Section
from postern_core.service import Serve
from postern_delivery.attempt import Attempts
from postern_delivery.badmail import BadmailStore
from postern_delivery.bodies import JobBodies
from postern_delivery.control import Control
from postern_delivery.deferral import Deferral
from postern_delivery.feeds import Feeds
from postern_delivery.first_try import FirstTry
from postern_delivery.janitor import Janitor
from postern_delivery.notices import Notices
from postern_delivery.orphans import OrphanBodies
from postern_delivery.pools import RoutePools
from postern_delivery.queue_sizes import QueueSizes
from postern_delivery.retry import RetryLoop
from postern_delivery.retry_attempt import RetryAttempt
from postern_delivery.routing import RoutingTable
from postern_delivery.settings import Settings
from postern_delivery.settlement import Settlement
from postern_delivery.store.database import Database, DatabaseAway
from postern_delivery.store.migrating import migrate
from postern_delivery.store.repository import QueueRepository

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SERVICE: Final = "delivery"
_DATABASE_PAUSE_S: Final = 2.0
_AFTER_DRAIN_S: Final = 3.0  # of the drain time, for goodbyes and the last events


def serve_with(settings: Settings) -> Serve:
    """What `run_service` runs."""

    async def serve(bus: Bus, stop: asyncio.Event) -> None:
        await Delivery(bus, settings).run(stop)

    return serve


class Delivery:
    """One replica."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self._settings = settings
        self._stopping = False
        self._has_database = False
        janitor_wanted, queue_changed = asyncio.Event(), asyncio.Event()
        self._watch: PolicyWatch[DeliveryPolicy, RoutingTable] = PolicyWatch(
            bus,
            Section.DELIVERY,
            DeliveryPolicy,
            RoutingTable.compile,
            state_dir=settings.state_dir,
            on_change=lambda _: self._policy_changed(),
        )
        self._events = EventSink(bus, _SERVICE)
        self._status = StatusReporter(bus, _SERVICE, settings.instance, self._probe, ready_file=settings.ready_file)
        self._database = Database(settings.database())
        self._pools = RoutePools(bus, self._table, connect_timeout_s=settings.connect_timeout_s, idle_s=settings.idle_s)
        repository = QueueRepository(self._database)
        dispositions = DispositionLog(bus)
        store = BodyStore(bus, _SERVICE, settings.inline_limit_bytes)
        bodies = JobBodies(bus, store)
        badmail = BadmailStore(bus, bodies)
        notices = Notices(bus, store, self._table, self._events, full_limit_bytes=settings.ndr_full_limit_bytes)
        settlement = Settlement(dispositions, notices, badmail)
        attempts = Attempts(self._table, self._pools, self._events, limit_s=settings.attempt_limit_s)
        deferral = Deferral(
            bus=bus,
            repository=repository,
            dispositions=dispositions,
            bodies=bodies,
            table=self._table,
            events=self._events,
            jitter=settings.retry_jitter,
            queue_changed=queue_changed,
            janitor_wanted=janitor_wanted,
        )
        first_try = FirstTry(
            dispositions=dispositions,
            bodies=bodies,
            attempts=attempts,
            settlement=settlement,
            deferral=deferral,
            janitor_wanted=janitor_wanted,
        )
        self._feeds = Feeds(bus, first_try.handle, concurrency=settings.concurrency, keep_for_s=2 * settings.attempt_limit_s)
        retry_attempt = RetryAttempt(
            bus=bus,
            repository=repository,
            dispositions=dispositions,
            bodies=bodies,
            attempts=attempts,
            settlement=settlement,
            deferral=deferral,
            notices=notices,
            table=self._table,
        )
        self._retry = RetryLoop(
            repository,
            retry_attempt.run,
            # a replica that is started again under its name must not take its old leases for its own
            owner=f"{settings.instance}/{os.getpid()}/{new_queue_id()}",
            concurrency=settings.retry_concurrency,
            lease_s=settings.lease_s,
            has_mail=lambda: bus.connected,
            queue_changed=queue_changed,
        )
        orphans = OrphanBodies(bus, grace_s=settings.orphan_grace_s)
        self._janitor = Janitor(bus, repository, deferral, orphans, every_s=settings.janitor_every_s, wanted=janitor_wanted)
        self._counting = (self._pools.counters, settlement.counters, attempts.counters, deferral.counters)
        self._queue_sizes = QueueSizes(repository)
        self._control = Control(bus, repository, badmail, self._retry_wanted)

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop`, then drain."""
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run(ended), name="policy")
            tasks.create_task(self._events.run(ended), name="events")
            tasks.create_task(self._status.run(ended), name="status")
            tasks.create_task(keep_large_blocks(ended), name="heap")
            try:
                await self._deliver(stop)
            finally:
                await self._pools.close()
                await self._database.close()
                ended.set()

    async def _deliver(self, stop: asyncio.Event) -> None:
        await _first_of(self._watch.loaded, stop)
        if stop.is_set():
            return
        drain_s = max(self._settings.drain_s - _AFTER_DRAIN_S, 0.5)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feeds.run(stop, drain_s), name="feeds")
            tasks.create_task(self._control.run(stop), name="control")
            tasks.create_task(self._work_off_queue(stop, drain_s), name="queue")
            await stop.wait()
            self._stopping = True
            self._status.poke()

    async def _work_off_queue(self, stop: asyncio.Event, drain_s: float) -> None:
        """Whenever the database is there. Without it mail is delivered at first try, and deferred to the stream."""
        while not stop.is_set():
            try:
                await migrate(self._database)
                self._has_database = True
                self._status.poke()
                # in a task of its own: in Python 3.11.2 (Debian 12) a task in which a group has failed counts as cancelled for ever, and its next
                # time-out ends it
                await asyncio.create_task(self._use_queue(stop, drain_s), name="queue-in-use")
            except DatabaseAway as error:
                log.warning("queue.unavailable", reason=str(error))
            except (
                Exception
            ):  # a fault of the queue must not keep mail from its first try: it is logged, and the queue begins anew
                log.exception("queue.failed")
            if stop.is_set():
                return
            self._has_database = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DATABASE_PAUSE_S):
                    await stop.wait()

    async def _use_queue(self, stop: asyncio.Event, drain_s: float) -> None:
        """Until `stop`, or until something of it fails: DatabaseAway when that is all."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._retry.run(stop, drain_s), name="retry")
                tasks.create_task(self._janitor.run(stop), name="janitor")
                tasks.create_task(self._queue_sizes.run(stop), name="queue-sizes")
        except ExceptionGroup as failed:
            away, others = failed.split(DatabaseAway)
            if away is None or others is not None:
                raise
            raise away.exceptions[0] from None

    def _table(self) -> RoutingTable:
        table = self._watch.current
        if table is None:
            raise RuntimeError("asked for the policy before there was one")
        return table

    def _policy_changed(self) -> None:
        self._pools.refresh()
        self._feeds.poke()
        self._retry.poke()
        self._status.poke()

    def _retry_wanted(self, route: str) -> None:
        self._pools.try_again(route)
        self._retry.poke()

    def _gauges(self) -> dict[str, Labelled]:
        sizes = self._queue_sizes.told
        gauges: dict[str, Labelled] = {GaugeName.CONNECTIONS.value: self._pools.connections()}
        return gauges if sizes is None else gauges | {GaugeName.RETRY_QUEUE.value: sizes}

    def _probe(self) -> dict[str, object]:
        return {
            "ready": self._watch.current is not None and not self._stopping,
            "revision": self._watch.revision,
            "policy_error": self._watch.error,
            "counters": {name: counted for counters in self._counting for name, counted in counters.told().items()},
            "gauges": self._gauges(),
            "in_flight": self._feeds.in_flight + self._retry.in_flight,
            "detail": ""
            if self._has_database
            else "the retry queue is not worked off: its database does not answer, or does not fit",
        }


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
