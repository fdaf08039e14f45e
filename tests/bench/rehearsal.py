"""Whether a rehearsal slows live mail: screened messages a second with one going on and without, in turn, in one run.

    python -m bench.rehearsal --rounds 5 --seconds 4

Broker, api and one screener worker are processes of their own. A few messages are always on their way (fewer than would make the rehearsal wait):
each that comes out of the screener is followed by another. The rehearsal goes through an archive of the same kind of mail under the rules of the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx
import msgspec
import structlog

from bench.inspection import envelope_of
from bench.mix import templates
from bench.processes import cpu_s, running, wait_until
from bench.rules import rules
from fixtures.broker import TEST_LIMITS, Broker
from fixtures.ports import free_port
from postern_core.archive import ArchivedMessage, frame_archived
from postern_core.batch import unframe_all
from postern_core.bus import Bus, Consumer, Delivered
from postern_core.bus.topology import ARCHIVE, GIB, INTAKE, OUTBOUND, archive_subject, intake_subject
from postern_core.envelope import Gate, frame
from postern_core.job import Job
from postern_core.verdict import Decision, Verdict

_TOKEN: Final = "an-administrators-token-of-the-bench"
_OUTSTANDING: Final = 8
_ENTRY: Final = 20
_PATIENCE_S: Final = 60


class _Live:
    """The closed loop: `outstanding` messages on their way, counted as they come out of the screener."""

    def __init__(self, gate: Bus, delivery: Bus, bodies: list[bytes]) -> None:
        self._gate = gate
        self._bodies = bodies
        self._sent = 0
        self.screened = 0
        self._consumer = Consumer(delivery, OUTBOUND, "delivery-main", self._take, concurrency=64)

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._consumer.run(stop, 2))
            for _ in range(_OUTSTANDING):
                await self._send()

    async def _take(self, delivered: Delivered) -> None:
        members = len(unframe_all(delivered.data, Job))
        self.screened += members
        await delivered.ack()
        for _ in range(members):
            await self._send()

    async def _send(self) -> None:
        body = self._bodies[self._sent % len(self._bodies)]
        self._sent += 1
        envelope = envelope_of(len(body))
        await self._gate.publish(INTAKE, intake_subject(Gate.ANON, envelope.id), frame(envelope, body), f"{envelope.id}:intake")


async def measure(directory: Path, rounds: int, seconds: float, mix: str) -> dict[str, Any]:
    bodies = [template.data for template in templates(mix) if not template.caught]
    broker = Broker(directory / "broker")
    broker.start()
    with ExitStack() as processes:
        processes.callback(broker.stop)
        await broker.provision(replace(TEST_LIMITS, archive_bytes=GIB))
        api_port, api_pid, screener_pid = _started(processes, broker, directory)
        gate, delivery, screener = [await broker.connect(user) for user in ("ingress-anon", "delivery", "screener")]
        for _ in range(40):
            await _archive(screener, bodies)
        stop = asyncio.Event()
        live = _Live(gate, delivery, bodies)
        found: dict[str, Any] = {"alone": [], "beside": [], "rehearsed": [], "child_cpu": []}
        async with (
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{api_port}/api/v1", headers={"Authorization": f"Bearer {_TOKEN}"}, timeout=30
            ) as client,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(live.run(stop))
            await asyncio.sleep(2)
            for number in range(rounds):
                for side in ("alone", "beside") if number % 2 == 0 else ("beside", "alone"):
                    if side == "alone":
                        found[side].append(await _rate(live, seconds))
                        continue
                    begun = (await client.post("/screening/rehearsals", json={"source": "archive"})).raise_for_status().json()
                    path, before = f"/screening/rehearsals/{begun['id']}", cpu_s([screener_pid, api_pid])
                    found[side].append(await _rate(live, seconds))
                    rehearsal = (await client.get(path)).json()
                    found["rehearsed"].append(rehearsal["examined"])
                    found["child_cpu"].append(round(cpu_s([screener_pid, api_pid]) - before, 2))
                    if rehearsal["state"] == "running":
                        await client.delete(path)
                    await asyncio.sleep(0.5)
            stop.set()
        for bus in (gate, delivery, screener):
            await bus.close()
    found["ratio"] = [round(beside / alone, 3) for alone, beside in zip(found["alone"], found["beside"], strict=True)]
    return found


async def _rate(live: _Live, seconds: float) -> float:
    begun, before = time.monotonic(), live.screened
    await asyncio.sleep(seconds)
    return round((live.screened - before) / (time.monotonic() - begun), 1)


def _started(processes: ExitStack, broker: Broker, directory: Path) -> tuple[int, int, int]:
    """Api and one screener worker, ready: the api's port, and their process ids."""
    (directory / "token").write_text(_TOKEN)
    (directory / "bootstrap.json").write_text(json.dumps(_policy()))
    port = free_port()
    more = {
        "api": {
            "POSTERN_LISTEN": f"127.0.0.1:{port}",
            "POSTERN_DATABASE_URL": f"sqlite+aiosqlite:///{directory}/control.db",
            "POSTERN_ADMIN_TOKEN_FILE": str(directory / "token"),
            "POSTERN_BOOTSTRAP_FILE": str(directory / "bootstrap.json"),
        },
        "screener": {},
    }
    pids = []
    for service, settings in more.items():
        ready, log = directory / f"{service}.ready", directory / f"{service}.log"
        common = {
            "POSTERN_NATS_URL": broker.url,
            "POSTERN_NATS_USER": service,
            "POSTERN_NATS_PASSWORD_FILE": str(broker.directory / f"{service}.password"),
            "POSTERN_NATS_MONITOR_URL": broker.monitor_url,
            "POSTERN_READY_FILE": str(ready),
        }
        command = [sys.executable, "-m", f"postern_{service}"]
        pid = processes.enter_context(running(command, log, cwd=directory, environment=os.environ | common | settings))
        wait_until(ready.exists, pid, f"{service} to be ready", log)
        pids.append(pid)
    return port, pids[0], pids[1]


def _policy() -> dict[str, Any]:
    made = rules()
    conditions: list[dict[str, Any]] = [{"type": "sender", "patterns": [sender]} for sender in (*made.addresses, *made.domains)]
    conditions += [{"type": "attachment", "match": "extension", "values": [extension]} for extension in made.extensions]
    conditions += [{"type": "keyword", "phrases": list(group), "scope": "body"} for group in made.phrase_groups()]
    return {
        "hostname": "mx.relay.example",
        "domains": [{"pattern": "relay.example"}],
        "routes": [{"name": "main", "smart_hosts": [{"host": "[127.0.0.1]", "port": 2626}], "tls": "off", "default": True}],
        "rules": [{"name": f"bench {n}", "condition": condition, "action": "delete"} for n, condition in enumerate(conditions)],
    }


async def _archive(screener: Bus, bodies: list[bytes]) -> None:
    """One entry of the archive."""
    verdict = Verdict(revision=1, decision=Decision.PASS)
    members = [(ArchivedMessage(envelope=envelope_of(len(body)), verdict=verdict), body) for body in bodies[:_ENTRY]]
    first = members[0][0].envelope.id
    await screener.publish(ARCHIVE, archive_subject(first), frame_archived(members), f"{first}:archive")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--mix", default="50k")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="postern-rehearsal-") as directory:
        found = asyncio.run(measure(Path(directory), arguments.rounds, arguments.seconds, arguments.mix))
    print(msgspec.json.encode(found).decode())
    print(f"beside a rehearsal live mail goes on at {median(found['ratio']):.2f} times its rate")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
