"""Fixtures of the screener's tests."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fixtures.broker import TEST_LIMITS, Broker
from postern_core.batch import batch_token, frame_batch, unframe_all
from postern_core.bus import BodyStore, Bus
from postern_core.bus.connection import Stored
from postern_core.bus.topology import DISPOSITIONS, INTAKE, OUTBOUND, QUARANTINE, intake_subject
from postern_core.disposition import Disposition
from postern_core.envelope import Client, Envelope, Gate, Recipient, frame, unframe
from postern_core.ids import accepted_at, new_queue_id
from postern_core.job import Job
from postern_core.policy import RelayDomain, Rule, ScreeningPolicy, encode_section
from postern_core.verdict import HeldMessage
from postern_core.workers import Supervisor, command_of
from postern_screener.app import serve
from postern_screener.ruleset import compile_policy
from postern_screener.screening import Screened, screen
from postern_screener.settings import Settings

AnEnvelope = Callable[..., Envelope]
Screens = Callable[..., Screened]


def build_envelope(*recipients: str, reverse_path: str = "x@sender.example", size_bytes: int = 100) -> Envelope:
    queue_id = new_queue_id()
    at: datetime = accepted_at(queue_id)
    return Envelope(
        id=queue_id,
        gate=Gate.ANON,
        reverse_path=reverse_path,
        recipients=tuple(Recipient(n=n, address=address) for n, address in enumerate(recipients or ("a@relay.example",))),
        size_bytes=size_bytes,
        accepted_at=at,
        client=Client(address="127.0.0.1"),
    )


@pytest.fixture
def an_envelope() -> AnEnvelope:
    return build_envelope


@pytest.fixture
def screens() -> Screens:
    """Screens bytes with the given rules."""

    def run(body: bytes, *rules: Rule, reverse_path: str = "x@sender.example", hold: str = "") -> Screened:
        envelope = msgspec.structs.replace(build_envelope(reverse_path=reverse_path), hold=hold)
        return screen(envelope, body, compile_policy(ScreeningPolicy(revision=7, rules=rules)))

    return run


@dataclass
class Mailbag:
    """Hands messages to INTAKE as a gate does, and reads what the screener made of them."""

    broker: Broker
    gate: Bus
    reader: Bus  # the provisioner: it may read every stream

    async def put_policy(self, *rules: Rule, revision: int = 1, **fields: Any) -> None:
        domains = (RelayDomain(pattern="relay.example", route="inside"), RelayDomain(pattern="*.branch.example", route="branch"))
        policy = ScreeningPolicy(revision=revision, rules=rules, relay_domains=domains, **fields)
        api = await self.broker.connect("api")
        await api.kv_put("POLICY", "screening", encode_section(policy))
        await api.close()

    async def send(
        self, body: bytes, *recipients: str, reverse_path: str = "x@sender.example", inline_limit: int = 1 << 19
    ) -> Envelope:
        envelope = build_envelope(*recipients, reverse_path=reverse_path, size_bytes=len(body))
        stowed, inline = await BodyStore(self.gate, "ingress-anon", inline_limit).stow(envelope, envelope.id, body)
        await self.gate.publish(
            INTAKE, intake_subject(Gate.ANON, envelope.id), frame(stowed, bytes(inline)), f"{envelope.id}:intake"
        )
        return stowed

    async def send_batch(self, *members: tuple[bytes, str | tuple[str, ...]]) -> list[Envelope]:
        """Bodies with their recipients, in one entry of INTAKE, as a gate commits what comes at the same moment."""
        envelopes = [build_envelope(*((to,) if isinstance(to, str) else to), size_bytes=len(body)) for body, to in members]
        framed = [(msgspec.json.encode(envelope), body) for envelope, (body, _) in zip(envelopes, members, strict=True)]
        token = batch_token(envelope.id for envelope in envelopes)
        await self.gate.publish(INTAKE, intake_subject(Gate.ANON, token), frame_batch(framed), f"{envelopes[0].id}+:intake")
        return envelopes

    async def screened(self, timeout_s: float = 30) -> None:
        """Until INTAKE is empty."""
        async with asyncio.timeout(timeout_s):
            while (await self.reader.stream_state(INTAKE))["messages"]:
                await asyncio.sleep(0.02)

    async def _all(self, stream: str, subject: str) -> list[Stored]:
        found: list[Stored] = []
        sequence = 1
        while (stored := await self.reader.next_on(stream, subject, sequence)) is not None:
            found.append(stored)
            sequence = stored.sequence + 1
        return found

    async def jobs(self, queue_id: str = "*") -> list[tuple[Job, bytes]]:
        found = [pair for batch in await self.batches(queue_id) for pair in batch]
        return [(job, bytes(await self.load(job.envelope, body))) for job, body in found]

    async def batches(self, token: str = "*") -> list[list[tuple[Job, memoryview]]]:
        """Each entry of OUTBOUND."""
        return [unframe_all(stored.data, Job) for stored in await self._all(OUTBOUND, f"outbound.*.{token}")]

    async def held(self, queue_id: str = "*") -> list[tuple[HeldMessage, bytes]]:
        found = [unframe(stored.data, HeldMessage) for stored in await self._all(QUARANTINE, f"quarantine.{queue_id}")]
        return [(held, bytes(await self.load(held.envelope, body))) for held, body in found]

    async def dispositions(self, queue_id: str = "*") -> list[Disposition]:
        stored = await self._all(DISPOSITIONS, f"disposition.{queue_id}.*")
        return [msgspec.json.decode(one.data, type=Disposition) for one in stored]

    async def bodies(self) -> set[str]:
        """Names of the stored bodies."""
        return {subject.removeprefix("body.").rpartition(".")[0] for subject in await self.reader.subjects("BODIES", "body.>")}

    async def load(self, envelope: Envelope, inline: memoryview) -> bytes | memoryview:
        return await BodyStore(self.reader, "reader", 0).load(envelope, inline)


@pytest.fixture
async def mailbag(broker: Broker) -> AsyncIterator[Mailbag]:
    # a short ack-wait, so that what a dead worker had comes back soon
    await broker.provision(replace(TEST_LIMITS, screening_ack_wait=timedelta(seconds=2)))
    bag = Mailbag(broker, await broker.connect("ingress-anon"), await broker.connect("provisioner"))
    yield bag
    await bag.gate.close()
    await bag.reader.close()


def environment(broker: Broker, **settings: object) -> dict[str, str]:
    """What a worker process of this broker runs with."""
    found = broker.settings("screener")
    own = {
        "POSTERN_NATS_URL": found.nats_url,
        "POSTERN_NATS_USER": found.nats_user,
        "POSTERN_NATS_PASSWORD_FILE": str(found.nats_password_file),
        "POSTERN_NATS_MONITOR_URL": found.nats_monitor_url,
    }
    return {**os.environ, **own, **{f"POSTERN_{name.upper()}": str(value) for name, value in settings.items()}}


@pytest.fixture
async def screener(mailbag: Mailbag) -> AsyncIterator[Screener]:
    """A worker in this process; it waits for a policy."""
    bus = await mailbag.broker.connect("screener")
    stop = asyncio.Event()
    settings = Settings(**mailbag.broker.settings("screener").model_dump())
    serving = asyncio.create_task(serve(bus, stop, settings))
    yield Screener(bus, stop, serving)
    stop.set()
    async with asyncio.timeout(15):
        await serving
    await bus.close()


@dataclass
class Screener:
    bus: Bus
    stop: asyncio.Event
    serving: asyncio.Task[None]


@pytest.fixture
async def supervised(mailbag: Mailbag, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Awaitable[Supervisor]]]:
    """Starts a supervisor of real worker processes; `program` is a file in programs/, or the real module."""
    running: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    async def start(program: str = "", **settings: object) -> Supervisor:
        for name, value in environment(mailbag.broker, **settings).items():
            monkeypatch.setenv(name, value)
        command = (
            [sys.executable, str(Path(__file__).with_name("programs") / program)]
            if program
            else list(command_of("postern_screener"))
        )
        supervisor = Supervisor(Settings(), command)
        stop = asyncio.Event()
        running.append((stop, asyncio.create_task(supervisor.run(stop))))
        return supervisor

    yield start
    for stop, task in running:
        stop.set()
        async with asyncio.timeout(20):
            await task
