"""The screener's own code, one operation on the bus at a time: `next_of` runs the real `Worker` over a message for several recipients and says what
it asks of the broker next, given what it was answered so far.

A run cannot be copied as a state can, so each is repeated from its beginning with the answers that it got; what it does depends on nothing else, and
each is repeated once only.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, cast

import msgspec

from model.splitting import WHOLE_BODY, Ack, Answer, End, Held, Job, PutBody, PutEnd, PutHeld, PutJob, Read, Remove, Request
from postern_core.bus import BodyStore, Bus, Delivered, EventSink
from postern_core.bus.connection import Stored
from postern_core.bus.publishing import PubAck, SubjectTakenError
from postern_core.bus.topology import BODIES, DISPOSITIONS, OUTBOUND, QUARANTINE
from postern_core.changes import TagSubject
from postern_core.disposition import Disposition
from postern_core.envelope import Client, Envelope, Gate, Recipient, frame, unframe
from postern_core.errors import TransientError
from postern_core.ids import QueueId
from postern_core.job import Job as RealJob
from postern_core.policy import RecipientCondition, RelayDomain, Rule, ScreeningPolicy
from postern_core.verdict import Action, HeldMessage
from postern_screener.actions import Actions
from postern_screener.archive import Archive
from postern_screener.engines.asking import EngineDesk
from postern_screener.ruleset import Ruleset, compile_policy
from postern_screener.sandbox import Sandbox
from postern_screener.screening import screen
from postern_screener.watchdog import Watchdog
from postern_screener.worker import Worker

WHOLE: Final = QueueId("01j9zq3v5k7wexamp1e0000000")
BODY: Final = b"From: x@sender.example\r\nSubject: hello\r\n\r\nhello\r\n"
ADDRESSES: Final = ("a@relay.example", "b@relay.example", "c@branch.example")  # the last one takes another route
_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_ACTIONS: Final = {"h": Action.HOLD, "d": Action.DELETE, "c": Action.CONTINUE}
_DOMAINS: Final = (RelayDomain(pattern="relay.example", route="inside"), RelayDomain(pattern="branch.example", route="branch"))


@functools.cache
def ruleset_of(policy: str) -> Ruleset:
    """`policy` has a letter for each recipient: p(ass), c(hanged and passed), h(old), d(elete)."""
    rules = [
        Rule(
            id=letter,
            name=letter,
            condition=RecipientCondition(
                patterns=tuple(a for a, wanted in zip(ADDRESSES, policy, strict=False) if wanted == letter)
            ),
            action=action,
            changes=(TagSubject(text="[tag]"),) if letter == "c" else (),
        )
        for letter, action in _ACTIONS.items()
        if letter in policy
    ]
    return compile_policy(ScreeningPolicy(revision=1, rules=tuple(rules), relay_domains=_DOMAINS))


class _Replay:
    """A bus that answers what is known, and notes the first request behind that."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self._answers = list(answers)
        self.request: Request | None = None

    def _ask(self, request: Request) -> Answer:
        if self._answers and self.request is None:
            return self._answers.pop(0)
        self.request = self.request or request
        raise TransientError(451, "4.3.0", "try again later", reason="nobody knows yet")

    async def publish(self, stream: str, subject: str, payload: bytes, msg_id: str, *, deadline_s: float = 0) -> PubAck:
        if self._ask(_put(stream, subject, bytes(payload), msg_id)) == "taken":
            raise SubjectTakenError(451, "4.3.0", "try again later", reason="taken")
        return PubAck(stream=stream, seq=1)

    async def last(self, stream: str, subject: str) -> Stored | None:
        answer = self._ask(Read(subject))
        if isinstance(answer, End):
            return Stored(subject, 1, msgspec.json.encode(_disposition(answer)), _AT)
        return Stored(subject, 1, answer, _AT) if isinstance(answer, bytes) else None

    async def subjects(self, stream: str, subject_filter: str, *, offset: int = 0) -> dict[str, int]:
        return {}  # dispositions that share an entry: the model has each alone

    async def purge(self, stream: str, subject_filter: str) -> int:
        self._ask(Remove(subject_filter.removesuffix("*")))
        return 1

    async def ack(self) -> None:
        self._ask(Ack())


class _Input:
    """An entry of INTAKE in the hands of the worker."""

    tries = 1  # it is no suspect: what comes again is inspected as what comes first, but looked up
    subject = f"intake.anon.{WHOLE}"

    def __init__(self, data: bytes, bus: _Replay, *, repeated: bool) -> None:
        self.data, self.repeated, self.ack = memoryview(data), repeated, bus.ack


def _put(stream: str, subject: str, payload: bytes, msg_id: str) -> Request:
    match stream:
        case _ if stream == OUTBOUND:
            job, inline = unframe(payload, RealJob)
            return PutJob(
                Job(
                    msg_id=msg_id,
                    id=job.queue_id,
                    recipients=tuple(recipient.n for recipient in job.recipients),
                    body=_place(job.envelope),
                    content=bytes(inline),
                    marked=job.maybe_duplicate,
                    route=job.route,
                )
            )
        case _ if stream == QUARANTINE:
            held, inline = unframe(payload, HeldMessage)
            numbers = tuple(recipient.n for recipient in held.envelope.recipients)
            return PutHeld(msg_id, Held(held.envelope.id, numbers, _place(held.envelope), bytes(inline)))
        case _ if stream == DISPOSITIONS:
            end = msgspec.json.decode(payload, type=Disposition)
            return PutEnd(msg_id, End(end.id, end.n, end.kind, end.generation, end.successor_id))
        case _ if stream == BODIES:
            return PutBody(msg_id, subject, payload)
    raise AssertionError(stream)


def _place(envelope: Envelope) -> str:
    return f"body.{envelope.body.name}.0" if envelope.body is not None else ""


def _disposition(end: End) -> Disposition:
    return Disposition(
        id=QueueId(end.id),
        n=end.n,
        recipients_total=1,
        kind=end.kind,
        gate=Gate.ANON,
        accepted_at=_AT,
        at=_AT,
        recipient=ADDRESSES[end.n],
        generation=end.generation,
        successor_id=end.successor,
    )


class _Nobody:
    """No bus: for what is told, and not promised."""


@functools.cache
def _loop() -> tuple[asyncio.AbstractEventLoop, Watchdog]:
    loop, watchdog, stop = asyncio.new_event_loop(), Watchdog(), asyncio.Event()
    stop.set()
    loop.run_until_complete(watchdog.run(stop))  # it does not arm any more
    return loop, watchdog


@functools.cache
def _entry(recipients: int, *, stored: bool) -> bytes:
    envelope = Envelope(
        id=WHOLE,
        gate=Gate.ANON,
        reverse_path="x@sender.example",
        recipients=tuple(Recipient(n=n, address=address) for n, address in enumerate(ADDRESSES[:recipients])),
        size_bytes=len(BODY),
        accepted_at=_AT,
        client=Client(address="127.0.0.1"),
    )
    if not stored:
        return frame(envelope, BODY)
    gate = _Replay(("",))
    stowed, _ = _loop()[0].run_until_complete(BodyStore(cast("Bus", gate), "ingress-anon", 0).stow(envelope, "whole", BODY))
    assert _place(stowed) == WHOLE_BODY
    return frame(stowed, b"")


@functools.cache
def next_of(policy: str, answers: tuple[Answer, ...], *, repeated: bool, stored: bool) -> Request | None:
    """None: it has let go of its input, or given up."""
    loop, watchdog = _loop()
    replay = _Replay(answers)
    bus = cast("Bus", replay)
    bodies = BodyStore(bus, "screener", 0 if stored else 1 << 19)
    worker = Worker(
        bodies=bodies,
        actions=Actions(bus, bodies),
        events=EventSink(cast("Bus", _Nobody()), "screener"),
        sandbox=Sandbox(()),
        watchdog=watchdog,
        ruleset=cast("Callable[[], Ruleset]", functools.partial(ruleset_of, policy)),
        inspect=screen,
        archive=Archive(cast("Bus", _Nobody())),
        engines=EngineDesk(),
    )
    delivered: Any = _Input(_entry(len(policy), stored=stored), replay, repeated=repeated)
    with contextlib.suppress(TransientError):
        loop.run_until_complete(worker.handle(cast("Delivered", delivered)))
    return replay.request
