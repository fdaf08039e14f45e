"""The screener alone with its broker: how many messages a second one worker process takes out of INTAKE and hands on, and how many two do.

    python -m bench.workers --rounds 3

Nothing else runs: mail is stored while the consumer is paused, in entries as the gates write them, and what is handed on stays in OUTBOUND. (What is
there already when the first entry comes may have been given out before: the screener looks that up, so that it gets one to begin with.) The rate is that of the middle of the run, so that neither
the start nor the last few messages count.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import structlog

from bench.curve_stack import fragments
from bench.inspection import envelope_of, screening_policy
from bench.mix import templates
from bench.processes import cpu_s, running, wait_until
from bench.rules import rules
from fixtures.broker import TEST_LIMITS, Broker
from postern_core.batch import MOST_MEMBERS, MOST_OCTETS, batch_token, frame_batch
from postern_core.broker.names import PROVISIONER, SCREENER_CONSUMER
from postern_core.bus import Bus
from postern_core.bus.topology import GIB, INTAKE, intake_subject
from postern_core.envelope import Gate
from postern_core.policy import KeywordCondition, KeywordScope, Rule, ScreeningPolicy, encode_section
from postern_core.verdict import Action

_PATIENCE_S: Final = 120
_LOOK_S: Final = 0.05


class Screened(msgspec.Struct, frozen=True, kw_only=True):
    """One run. CPU is that of all screener processes, and of the broker."""

    messages_per_s: float
    screener_ms: float
    broker_ms: float


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """`one` and `two` by round: one worker under the rules of the benchmark; one and two under rules that make inspection the load."""

    mix: str
    rules_only: list[Screened]
    one: list[Screened]
    two: list[Screened]

    @property
    def rate(self) -> float:
        return median(run.messages_per_s for run in self.rules_only)

    @property
    def growth(self) -> float:
        """How many times the rate of one worker two have."""
        return median(two.messages_per_s / one.messages_per_s for one, two in zip(self.one, self.two, strict=True))


def measure_workers(below: Path, *, mix: str = "50k", rounds: int = 3, messages: int = 4000) -> Workers:
    """RuntimeError when a screener does not come up, or does not empty INTAKE in time."""
    benchmark, heavy = screening_policy(rules()), _heavy()
    found = Workers(mix=mix, rules_only=[], one=[], two=[])
    for _ in range(rounds):
        found.rules_only.append(_run(below, benchmark, mix, 1, messages))
        found.one.append(_run(below, heavy, mix, 1, messages // 8))
        found.two.append(_run(below, heavy, mix, 2, messages // 8))
    return found


def _heavy() -> ScreeningPolicy:
    """A rule that makes screening the dearest step by far (`curve_stack.workers_curve`)."""
    condition = KeywordCondition(phrases=tuple(fragments()), whole_word=True, scope=KeywordScope.BODY)
    rule = Rule(id="heavy", name="CPU-bound", condition=condition, action=Action.DELETE)
    return msgspec.structs.replace(screening_policy(rules()), rules=(rule,))


def _run(below: Path, policy: ScreeningPolicy, mix: str, workers: int, messages: int) -> Screened:
    with tempfile.TemporaryDirectory(prefix="postern-workers-", dir=below) as name:
        broker = Broker(Path(name) / "broker")
        broker.start()
        try:
            return asyncio.run(_screened(broker, Path(name), policy, mix, workers, messages))
        finally:
            broker.stop()


async def _screened(broker: Broker, directory: Path, policy: ScreeningPolicy, mix: str, workers: int, messages: int) -> Screened:
    await broker.provision(replace(TEST_LIMITS, intake_bytes=16 * GIB, outbound_bytes=16 * GIB))
    api, gate, provisioner = [await broker.connect(user) for user in ("api", "ingress-anon", PROVISIONER)]
    try:
        await api.kv_put("POLICY", "screening", encode_section(policy))
        settings = {
            "POSTERN_INSTANCE": "bench",
            "POSTERN_WORKERS": str(workers),
            "POSTERN_NATS_URL": broker.url,
            "POSTERN_NATS_USER": "screener",
            "POSTERN_NATS_PASSWORD_FILE": str(broker.directory / "screener.password"),
            "POSTERN_NATS_MONITOR_URL": broker.monitor_url,
            "POSTERN_READY_FILE": str(directory / "ready"),
        }
        log = directory / "screener.log"
        command = [sys.executable, "-m", "postern_screener"]
        with running(command, log, cwd=directory, environment=os.environ | settings) as pid:
            wait_until((directory / "ready").exists, pid, "the screener to be ready", log)
            assert broker.process is not None
            await _store(gate, mix, 1)
            await _left(api, 0)
            await _pause(provisioner, timedelta(hours=1))
            entries = await _store(gate, mix, messages)
            await _pause(provisioner, timedelta(0))
            return await _watched(api, [pid], [broker.process.pid], entries, messages / entries)
    finally:
        for bus in (gate, api, provisioner):
            await bus.close()


async def _pause(provisioner: Bus, how_long: timedelta) -> None:
    """No time at all lets the consumer go on."""
    until = (datetime.now(UTC) + how_long).isoformat()
    await provisioner.api(f"CONSUMER.PAUSE.{INTAKE}.{SCREENER_CONSUMER}", {"pause_until": until} if how_long else {})


async def _watched(api: Bus, screener: list[int], broker: list[int], entries: int, members: float) -> Screened:
    """From when a fifth of the entries are gone until a twentieth is left; of a tiny run all of it."""
    async with asyncio.timeout(_PATIENCE_S):
        left, begun, used = entries, time.monotonic(), (cpu_s(screener), cpu_s(broker))
        after_the_start = await _left(api, entries * 4 // 5)
        if after_the_start > entries // 2:
            left, begun, used = after_the_start, time.monotonic(), (cpu_s(screener), cpu_s(broker))
        rest = await _left(api, entries // 20)
    took_s, done = time.monotonic() - begun, (left - rest) * members
    screener_s, broker_s = cpu_s(screener) - used[0], cpu_s(broker) - used[1]
    return Screened(
        messages_per_s=round(done / took_s, 1),
        screener_ms=round(screener_s * 1000 / done, 4),
        broker_ms=round(broker_s * 1000 / done, 4),
    )


async def _left(api: Bus, most: int) -> int:
    """How many entries INTAKE holds, once it is not more than `most`."""
    while True:
        left = int((await api.jetstream.stream_info(INTAKE)).state.messages)
        if left <= most:
            return left
        await asyncio.sleep(_LOOK_S)


async def _store(gate: Bus, mix: str, messages: int) -> int:
    """Store them as a gate does that is busy: as many in one entry as may be. Returns the number of entries."""
    bodies = [template.data for template in templates(mix)]
    in_each = max(min(MOST_MEMBERS, MOST_OCTETS // (len(max(bodies, key=len)) + 2000)), 1)
    entries = max(messages // in_each, 1)
    for number in range(entries):
        chosen = [bodies[(number * in_each + member) % len(bodies)] for member in range(in_each)]
        envelopes = [envelope_of(len(body)) for body in chosen]
        token = batch_token(envelope.id for envelope in envelopes)
        members = [(msgspec.json.encode(envelope), body) for envelope, body in zip(envelopes, chosen, strict=True)]
        await gate.publish(INTAKE, intake_subject(Gate.ANON, token), frame_batch(members), f"{envelopes[0].id}:intake")
    return entries


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mix", default="50k")
    parser.add_argument("--messages", type=int, default=4000)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found = measure_workers(Path("/var/tmp"), mix=arguments.mix, rounds=arguments.rounds, messages=arguments.messages)
    print(msgspec.json.encode(found).decode())
    print(f"{found.rate:.0f} messages/s a worker; two do {found.growth:.2f} times as much as one where inspection is the load")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
