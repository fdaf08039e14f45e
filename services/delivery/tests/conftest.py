"""Delivery as it runs: a real broker, a real database, a recording smart host, and jobs as the screener publishes them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from fixtures.broker import TEST_LIMITS, Broker
from fixtures.smart_host import SmartHost
from postern_core.batch import batch_token, frame_batch
from postern_core.broker.names import PROVISIONER
from postern_core.bus import Bus
from postern_core.bus.provision import ensure_route
from postern_core.bus.topology import DISPOSITIONS, OUTBOUND, disposition_subject, outbound_subject
from postern_core.control import (
    BadmailPage,
    ControlError,
    DeliveryVerb,
    QueueAction,
    QueueChanged,
    QueuePage,
    QueueQuery,
)
from postern_core.disposition import Disposition, DispositionKind, read_dispositions
from postern_core.envelope import BodyRef, Client, Envelope, Gate, Recipient, frame
from postern_core.events import EventBatch, TraceEvent
from postern_core.ids import QueueId, accepted_at, new_queue_id
from postern_core.job import Job
from postern_core.policy import DeliveryPolicy, NextHop, RelayDomain, RetrySchedule, Route, encode_section
from postern_delivery.app import Delivery
from postern_delivery.settings import Settings

T = TypeVar("T", bound=msgspec.Struct)

MESSAGE = b"Received: from client\r\n\tby gate; Tue\r\nMessage-ID: <m1@example.org>\r\nSubject: hello\r\n\r\nhello\r\n"
QUICK = RetrySchedule(intervals_s=(0.5,), delay_notice_s=None, expiry_s=600)
LIMITS = replace(TEST_LIMITS, delivery_ack_wait=timedelta(seconds=5))


class Stack:
    """One delivery in this process, and hands to feed and watch it."""

    def __init__(self, broker: Broker, smart_host: SmartHost, directory: Path) -> None:
        self.broker = broker
        self.smart_host = smart_host
        self.policy = DeliveryPolicy(
            revision=0,
            hostname="relay.example.net",
            routes=(self.route("default"),),
            schedule=QUICK,
            relay_domains=(RelayDomain(pattern="relay.example"),),
        )
        self.settings = Settings(
            **broker.settings("delivery").model_dump(exclude={"drain_s"}),
            database_url=f"sqlite+aiosqlite:///{directory / 'queue.db'}",
            janitor_every_s=0.5,
            orphan_grace_s=3600,
            lease_s=2,
            retry_jitter=0,
            drain_s=4,
            connect_timeout_s=2,
        )
        self.expects_database = True
        self.api: Bus
        self.delivery: Delivery
        self._bus: Bus
        self._stop: asyncio.Event
        self._task: asyncio.Task[None] | None = None
        self._published = 0

    def route(self, name: str, port: int | None = None, **more: Any) -> Route:
        hop = NextHop(host="127.0.0.1", port=self.smart_host.port if port is None else port)
        return Route(name=name, next_hops=(hop,), **more)

    # -- life

    async def prepare(self) -> None:
        self.api = await self.broker.connect("api")
        await self.set_policy()

    async def start(self) -> None:
        self._bus = await self.broker.connect("delivery")
        self._stop = asyncio.Event()
        self.delivery = Delivery(self._bus, self.settings)
        self._task = asyncio.create_task(self.delivery.run(self._stop))
        await self._applied()

    async def stop(self) -> None:
        if self._task is not None:
            self._stop.set()
            async with asyncio.timeout(15):
                await self._task
            self._task = None
            await self._bus.close()

    async def kill(self) -> None:
        """End it in the middle of whatever it does; its broker connection first, so that it cannot hand anything back."""
        assert self._task is not None
        await self._bus.client.close()
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None

    async def close(self) -> None:
        await self.stop()
        await self.api.close()

    async def set_policy(self, **changes: Any) -> None:
        """Publish a policy; returns when a running delivery has it."""
        self.policy = msgspec.structs.replace(self.policy, revision=self.policy.revision + 1, **changes)
        provisioner = await self.broker.connect(PROVISIONER)
        for route in self.policy.routes:
            await ensure_route(provisioner, route.name, LIMITS)
        await provisioner.close()
        await self.api.kv_put("POLICY", "delivery", encode_section(self.policy))
        if self._task is not None:
            await self._applied()

    async def _applied(self) -> None:
        async def applied() -> bool:
            assert self._task is not None
            if self._task.done():
                self._task.result()
            return self.delivery._watch.revision == self.policy.revision and self._is_up()

        await self.until(applied)

    def _is_up(self) -> bool:
        return self.delivery._has_database or not self.expects_database

    # -- mail

    async def send(
        self,
        *recipients: str | Recipient,
        sender: str = "me@sender.example",
        body: bytes = MESSAGE,
        route: str = "default",
        queue_id: QueueId | None = None,
        stored: BodyRef | None = None,
        is_dsn: bool = False,
        maybe_duplicate: bool = False,
        generation: int = 0,
        **envelope: Any,
    ) -> Job:
        """Publish one job as the screener does, under a message id of its own."""
        job = self.job(
            *recipients,
            sender=sender,
            body=body,
            route=route,
            queue_id=queue_id,
            stored=stored,
            is_dsn=is_dsn,
            maybe_duplicate=maybe_duplicate,
            generation=generation,
            **envelope,
        )
        self._published += 1
        await self.api.publish(
            OUTBOUND,
            outbound_subject(route, job.queue_id),
            frame(job, b"" if stored else body),
            f"{job.id}:outbound:{self._published}",
        )
        return job

    async def send_batch(self, *recipients: str, body: bytes = MESSAGE) -> list[Job]:
        """Publish a job for each recipient, all in one entry, as the screener hands a batch on."""
        key = new_queue_id()
        jobs = [self.job(recipient, batch=key) for recipient in recipients]
        token = batch_token(job.queue_id for job in jobs)
        payload = frame_batch([(msgspec.json.encode(job), body) for job in jobs])
        await self.api.publish(OUTBOUND, outbound_subject("default", token), payload, f"{key}:outbound")
        return jobs

    def job(
        self,
        *recipients: str | Recipient,
        sender: str = "me@sender.example",
        body: bytes = MESSAGE,
        route: str = "default",
        queue_id: QueueId | None = None,
        stored: BodyRef | None = None,
        is_dsn: bool = False,
        maybe_duplicate: bool = False,
        generation: int = 0,
        batch: str = "",
        **envelope: Any,
    ) -> Job:
        queue_id = queue_id or new_queue_id()
        addressees = tuple(r if isinstance(r, Recipient) else Recipient(n=n, address=r) for n, r in enumerate(recipients))
        fields: dict[str, Any] = {
            "id": queue_id,
            "gate": Gate.ANON,
            "reverse_path": sender,
            "recipients": addressees,
            "size_bytes": len(body),
            "accepted_at": accepted_at(queue_id),
            "client": Client(address="192.0.2.1"),
            "body": stored,
        }
        return Job(
            route=route,
            envelope=Envelope(**(fields | envelope)),
            recipients=addressees,
            is_dsn=is_dsn,
            maybe_duplicate=maybe_duplicate,
            generation=generation,
            batch=batch,
        )

    async def dispositions(self, job: Job, timeout: float = 20) -> dict[str, str]:
        """Address → disposition, once every recipient of the job has one."""
        found = await self.ends(job, timeout)
        return {end.recipient: end.kind.value for end in found}

    async def ends(self, job: Job, timeout: float = 20) -> list[Disposition]:
        """The dispositions of a job, once every recipient has a final one."""
        found: list[Disposition] = []

        async def all_ended() -> bool:
            found.clear()
            for recipient in job.recipients:
                end = await self.end_of(job.queue_id, recipient.n)
                if end is None or not end.kind.is_final:
                    return False
                found.append(end)
            return True

        await self.until(all_ended, timeout)
        return found

    async def end_of(self, queue_id: str, n: int) -> Disposition | None:
        stored = await self.api.last(DISPOSITIONS, disposition_subject(QueueId(queue_id), n))
        return msgspec.json.decode(stored.data, type=Disposition) if stored else None

    async def delivered(self, jobs: list[Job]) -> set[str]:
        """Recipients of jobs of one batch that are written down as delivered, together or alone."""
        found: set[str] = set()
        alone = [disposition_subject(job.queue_id, recipient.n) for job in jobs for recipient in job.recipients]
        written = await self.api.subjects(DISPOSITIONS, "disposition.*.*")
        for subject in (subject for subject in written if subject in alone or subject.split(".")[1] == jobs[0].batch):
            stored = await self.api.last(DISPOSITIONS, subject)
            assert stored is not None
            ends = read_dispositions(subject, stored.data)
            found |= {end.recipient for end in ends if end.kind is DispositionKind.DELIVERED}
        return found

    async def events(self) -> list[TraceEvent]:
        """The trace events of delivery so far."""
        found: list[TraceEvent] = []
        reader = await self.broker.connect(PROVISIONER)
        for sequence in range(1, (await reader.stream_state("EVENTS"))["last_seq"] + 1):
            stored = await reader.api("STREAM.MSG.GET.EVENTS", {"seq": sequence})
            found += msgspec.json.decode(base64.b64decode(stored["message"]["data"]), type=EventBatch).events
        await reader.close()
        return found

    async def outbound_is_empty(self) -> None:
        """Returns once everything was acknowledged."""

        async def empty() -> bool:
            return (await self.api.stream_state(OUTBOUND))["messages"] == 0

        await self.until(empty)

    async def holds(self, stream: str, messages: int) -> None:
        """Returns once `stream` holds so many messages."""

        async def reached() -> bool:
            return (await self.api.stream_state(stream))["messages"] == messages

        await self.until(reached)

    # -- control

    async def ask(self, verb: DeliveryVerb, request: msgspec.Struct, kind: type[T]) -> T:
        answer = await self.api.request(f"control.delivery.{verb.value}", msgspec.json.encode(request), timeout_s=5)
        decoded = msgspec.json.decode(answer)
        if "error" in decoded:
            raise RuntimeError(msgspec.convert(decoded, ControlError).message)
        return msgspec.convert(decoded, kind)

    async def change(self, verb: DeliveryVerb, **action: Any) -> int:
        return (await self.ask(verb, QueueAction(**action), QueueChanged)).changed

    async def queue(self, **query: Any) -> QueuePage:
        return await self.ask(DeliveryVerb.QUEUE_LIST, QueueQuery(**query), QueuePage)

    async def badmail(self) -> BadmailPage:
        return await self.ask(DeliveryVerb.BADMAIL_LIST, QueueQuery(), BadmailPage)

    async def queued(self, rows: int = 1) -> QueuePage:
        """The retry queue, once it has so many rows."""
        page: list[QueuePage] = []

        async def there() -> bool:
            page[:] = [await self.queue()]
            return page[0].total == rows

        await self.until(there)
        return page[0]

    @staticmethod
    async def until(condition: Callable[[], Awaitable[bool]], timeout: float = 20) -> None:
        async with asyncio.timeout(timeout):
            while not await condition():
                await asyncio.sleep(0.02)


@pytest.fixture
async def idle_stack(broker: Broker, smart_host: SmartHost, tmp_path: Path) -> AsyncIterator[Stack]:
    """Everything but delivery itself, which the test starts."""
    stack = Stack(broker, smart_host, tmp_path)
    await stack.prepare()
    try:
        yield stack
    finally:
        await stack.close()


@pytest.fixture
async def stack(idle_stack: Stack) -> Stack:
    """Delivery, running."""
    await idle_stack.start()
    return idle_stack


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of either kind."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite+aiosqlite:///{tmp_path / 'queue.db'}"


def now() -> datetime:
    return datetime.now(UTC)
