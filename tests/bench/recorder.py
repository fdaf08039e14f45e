"""The api's recorder alone: its CPU for each message of the small mix, all that the services tell of it (three steps and a disposition).

    python -m bench.recorder                              # at 400 messages/s, as they come under load
    python -m bench.recorder --rate 0                     # a backlog, as after the api was away
    python -m bench.recorder --before ../../old/services/api/src    # interleaved with the api of another checkout, and the ratios

A broker of its own that syncs every message; recorder and database (SQLite, synced) are a process of their own, whose user and system time counts.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import structlog
import uvloop
from sqlalchemy import make_url

from bench.mix import CAUGHT_SHARE
from bench.run import private_directory
from fixtures.broker import Broker
from postern_core.broker.names import RECORDER_CONSUMER
from postern_core.bus import Bus, connect
from postern_core.bus.topology import DISPOSITIONS, EVENTS, disposition_subject, event_subject
from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Gate
from postern_core.events import EventBatch, EventKind, TraceEvent
from postern_core.ids import new_queue_id
from postern_core.settings import BusSettings

_COLLECT_S = 0.2  # services tell what happened in such a time at once
_EVENTS = 500  # at most so many
_AT_ONCE = 100  # publishes of the backlog
_DONE_S = 300
_WARM_UP = 200  # messages, so that statements are compiled and modules read


class Told:
    """What the services tell of `count` messages that were accepted in `seconds`: batches of events by service, and dispositions."""

    def __init__(self, first: int, count: int, seconds: float) -> None:
        begun = datetime.now(UTC)
        steps: dict[str, list[TraceEvent]] = {"ingress-anon": [], "screener": [], "delivery": []}
        self.ends: list[Disposition] = []
        for k in range(count):
            at, number = begun + timedelta(seconds=k * seconds / count), first + k
            self._tell(steps, at, number, is_caught=number % round(1 / CAUGHT_SHARE) == 0)
        self.batches = [
            (service, EventBatch(events=tuple(told[start : start + _EVENTS])))
            for service, told in steps.items()
            for start in range(0, len(told), _EVENTS)
        ]

    def _tell(self, steps: dict[str, list[TraceEvent]], at: datetime, number: int, *, is_caught: bool) -> None:
        queue_id = new_queue_id(int(at.timestamp() * 1000))

        def tell(service: str, kind: EventKind, after_ms: float, **fields: str | int | float | bool) -> None:
            moment = at + timedelta(milliseconds=after_ms)
            steps[service].append(TraceEvent(id=queue_id, kind=kind, at=moment, service=service, fields=fields))

        sender, recipient = f"sender{number % 997}@origin.example", f"recipient{number % 4999}@relay.example"
        tell(
            "ingress-anon",
            EventKind.ACCEPTED,
            3,
            gate="anon",
            reverse_path=sender,
            recipients=1,
            to=recipient,
            size_bytes=6000 + number % 2000,
            client="192.0.2.7",
            helo="mail.origin.example",
            tls=False,
            user="",
        )
        end = {"next_hop": "127.0.0.1:2525", "reply": f"250 2.0.0 Ok: queued as 4XyZ{number:08}", "route": "main"}
        if is_caught:
            rule = {"rule_id": "bench-3", "rule_name": "bench 3", "part": "1", "offset": 2100}
            tell(
                "screener",
                EventKind.SCREENED,
                6,
                decision="delete",
                revision=1,
                ms=0.412,
                **rule,
                detail="phrase of rule bench 3",
            )
            end = {"detail": "rule bench 3"}
        else:
            tell("screener", EventKind.SCREENED, 6, decision="pass", revision=1, ms=0.412)
            fates = {"recipients": 1, "delivered": 1, "bounced": 0, "deferred": 0, "in_doubt": 0}
            tell("delivery", EventKind.ATTEMPTED, 12, **end, **fates)
        self.ends.append(
            Disposition(
                id=queue_id,
                n=0,
                recipients_total=1,
                kind=DispositionKind.DELETED if is_caught else DispositionKind.DELIVERED,
                gate=Gate.ANON,
                accepted_at=at,
                at=at + timedelta(milliseconds=13),
                recipient=recipient,
                **end,
            )
        )


class Telling:
    """The services, as far as the recorder hears of them."""

    def __init__(self, gate: Bus, screener: Bus, delivery: Bus) -> None:
        self._by_service = {"ingress-anon": gate, "screener": screener, "delivery": delivery}
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def tell(self, count: int, rate: float) -> None:
        """`rate` messages/s; 0: as fast as the broker takes it."""
        window = round(rate * _COLLECT_S) or _EVENTS
        due = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for first in range(0, count, window):
                told = Told(first, min(window, count - first), _COLLECT_S)
                for k, end in enumerate(told.ends):
                    if rate and (left := due + k / rate - time.monotonic()) > 0.005:
                        await asyncio.sleep(left)
                    await self._at_once.acquire()
                    tasks.create_task(self._end(end))
                due += len(told.ends) / rate if rate else 0
                for service, batch in told.batches:
                    payload, subject = msgspec.json.encode(batch), event_subject(service, "trace")
                    await self._by_service[service].publish(EVENTS, subject, payload, f"{service}:{first}:{batch.events[0].id}")

    async def _end(self, end: Disposition) -> None:
        try:
            bus = self._by_service["delivery" if end.kind is DispositionKind.DELIVERED else "screener"]
            msg_id = f"{end.id}:{end.n}:{end.generation}:{end.kind}"
            await bus.publish(DISPOSITIONS, disposition_subject(end.id, end.n), msgspec.json.encode(end), msg_id)
        finally:
            self._at_once.release()


async def record(settings: BusSettings, database_path: Path) -> None:
    """Twice, from a line on standard input to the next: record, and then write CPU seconds, and what the books hold, to standard output."""
    # by name, so that they can be those of another checkout
    recorder = importlib.import_module("postern_api.recorder")
    database = importlib.import_module("postern_api.store.database").Database(make_url(f"sqlite+aiosqlite:///{database_path}"))
    await importlib.import_module("postern_api.store.migrating").migrate(database)
    repository = importlib.import_module("postern_api.messages.repository").TraceRepository(database)
    ledger = importlib.import_module("postern_api.ledger.repository").LedgerRepository(database)
    bus = await connect(settings, "api")
    for _ in range(2):
        await asyncio.to_thread(sys.stdin.readline)
        begun, stop = time.process_time(), asyncio.Event()
        running = recorder.Recorder(bus, repository, trace_days=30, on_held=lambda: None)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(running.run(stop, 5))
            await asyncio.to_thread(sys.stdin.readline)
            stop.set()
        spent_s = time.process_time() - begun
        accepted, ended = await ledger.totals(None)
        print(json.dumps({"cpu_s": spent_s, "accepted": sum(accepted.values()), "ended": sum(ended.values())}), flush=True)
    await bus.close()
    await database.close()


async def measure(directory: Path, source: str, count: int, rate: float) -> float:
    """CPU of the recorder in ms a message. RuntimeError when the books do not hold all of them in the end."""
    broker = Broker(directory / "broker")
    broker.start()
    try:
        await broker.provision()
        buses = [await broker.connect(service) for service in ("ingress-anon", "screener", "delivery", "api")]
        telling = Telling(*buses[:3])
        command = [sys.executable, "-m", "bench.recorder", "--record", str(directory / "control.db")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
            "POSTERN_NATS_URL": broker.url,
            "POSTERN_NATS_USER": "api",
            "POSTERN_NATS_PASSWORD_FILE": str(broker.directory / "api.password"),
            "POSTERN_NATS_MONITOR_URL": broker.monitor_url,
        }
        child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment)
        try:
            await _phase(child, buses[3], telling.tell(_WARM_UP, 0))
            if rate:
                found = await _phase(child, buses[3], telling.tell(count, rate))
            else:
                await telling.tell(count, 0)
                found = await _phase(child, buses[3])
            await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
        for bus in buses:
            await bus.close()
    finally:
        broker.stop()
    if (found["accepted"], found["ended"]) != (count + _WARM_UP, count + _WARM_UP):
        raise RuntimeError(
            f"of {count + _WARM_UP} messages the books have {found['accepted']} accepted and {found['ended']} ended"
        )
    return float(found["cpu_s"]) * 1000 / count


async def _phase(child: Process, bus: Bus, telling: Awaitable[None] | None = None) -> dict[str, Any]:
    """Have it record what is told meanwhile, or waits; returns what it says of that."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"\n")
    if telling is not None:
        await telling
    await _read_to_the_end(bus)
    child.stdin.write(b"\n")
    found: dict[str, Any] = json.loads(await child.stdout.readline())
    return found


async def _read_to_the_end(bus: Bus) -> None:
    async with asyncio.timeout(_DONE_S):
        for stream in (DISPOSITIONS, EVENTS):
            while True:
                info = await bus.consumer_info(stream, RECORDER_CONSUMER)
                if not info["num_pending"] + info["num_ack_pending"]:
                    break
                await asyncio.sleep(0.1)


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=8000, help="of each round (default 8000)")
    parser.add_argument("--rate", type=float, default=400, help="messages/s; 0: all of them wait when it starts (default 400)")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--before", default="", help="services/api/src of another checkout, to be measured in turn")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk (default /var/tmp)")
    parser.add_argument("--record", type=Path, metavar="DATABASE", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main() -> int:
    arguments = _arguments()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if arguments.record:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the service does
            runner.run(record(BusSettings(), arguments.record))
        return 0
    sources = {"now": ""} | ({"before": arguments.before} if arguments.before else {})
    found: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(arguments.rounds):
        for name, source in sources.items() if number % 2 else reversed(sources.items()):
            with private_directory(arguments.directory) as directory:
                found[name].append(asyncio.run(measure(directory, source, arguments.messages, arguments.rate)))
            print(f"round {number + 1}, {name}: {found[name][-1]:.3f} ms a message", flush=True)
    for name, rounds in found.items():
        print(f"{name}: {median(rounds):.3f} ms CPU a message ({min(rounds):.3f}–{max(rounds):.3f})")
    if arguments.before:
        print(f"ratio: {median(b / n for b, n in zip(found['before'], found['now'], strict=True)):.2f} (median of the rounds)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
