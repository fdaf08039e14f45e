"""The gate alone: ingress-anon and a broker that syncs every message, no screener and no delivery, against stock aiosmtpd.

Both take the same messages from the same generator, in turn and in changing order, so that what else the machine does meets both; what counts
is the median of the ratios of the rounds. What the gate accepts stays in INTAKE until the directory goes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import msgspec

from bench import generator
from bench.measure import TESTS, Load, Running, generator_command
from bench.processes import cpu_s, running, wait_until
from bench.stock import stock_aiosmtpd
from fixtures.broker import TEST_LIMITS, Broker
from fixtures.ports import free_port
from postern_core.bus.topology import GIB
from postern_core.policy import GateLimits, GatePolicy, RelayDomain, encode_section

_NO_LIMITS = GateLimits(
    max_message_bytes=None, max_session_bytes=None, max_messages=None, max_connections=None, max_connections_per_client=None
)
_SETTLE_S = 0.2  # what a server does behind its last 250 is its CPU time, too
_WARM_UP = 200
_PATIENCE_S = 300


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """How one server took one load: from the first message begun to the last 250, and CPU by process."""

    messages_per_s: float
    cpu_ms_per_message: dict[str, float]

    @property
    def cpu_ms(self) -> float:
        return sum(self.cpu_ms_per_message.values())


class Duel(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds of two servers under the same load, `stock` being aiosmtpd."""

    mix: str
    ours: list[Taken]
    stock: list[Taken]

    @property
    def rate(self) -> float:
        """How many times as many messages a second we take."""
        return median(our.messages_per_s / their.messages_per_s for our, their in zip(self.ours, self.stock, strict=True))

    def cpu(self, *services: str) -> float:
        """How many times as much CPU a message costs aiosmtpd as it costs these services of ours; all of them when none is named."""
        return median(
            their.cpu_ms / (sum(our.cpu_ms_per_message[name] for name in services) if services else our.cpu_ms)
            for our, their in zip(self.ours, self.stock, strict=True)
        )


@contextmanager
def gate_alone(directory: Path, **more: str) -> Iterator[Running]:
    """The gate and its broker as processes of their own; they take mail inside the block. `more` settings for the gate."""
    broker, port, ready, log = Broker(directory / "broker"), free_port(), directory / "gate.ready", directory / "gate.log"
    broker.start()
    try:
        asyncio.run(_prepare(broker))
        settings = {
            "POSTERN_INSTANCE": "bench",
            "POSTERN_NATS_URL": broker.url,
            "POSTERN_NATS_USER": "ingress-anon",
            "POSTERN_NATS_PASSWORD_FILE": str(broker.directory / "ingress-anon.password"),
            "POSTERN_NATS_MONITOR_URL": broker.monitor_url,
            "POSTERN_READY_FILE": str(ready),
            "POSTERN_LISTEN": f"127.0.0.1:{port}",
        }
        command = [sys.executable, "-m", "postern_ingress_anon"]
        with running(command, log, cwd=directory, environment=os.environ | settings | more) as pid:
            wait_until(ready.exists, pid, "the gate to be ready", log)
            assert broker.process is not None
            yield Running(port, {"gate": [pid], "broker": [broker.process.pid]})
    finally:
        broker.stop()


async def _prepare(broker: Broker) -> None:
    # room for all that is sent: nothing takes it out
    await broker.provision(replace(TEST_LIMITS, intake_bytes=16 * GIB))
    api = await broker.connect("api")
    try:
        policy = GatePolicy(
            revision=1, hostname="mx.example", relay_domains=(RelayDomain(pattern="relay.example"),), anon=_NO_LIMITS
        )
        await api.kv_put("POLICY", "gates", encode_section(policy))
    finally:
        await api.close()


def take(server: Running, load: Load, directory: Path) -> Taken:
    """Send `load` to `server` as fast as it is taken. RuntimeError when not all of it was taken at once."""
    sent = directory / "sent.bin"
    before = {name: cpu_s(list(pids)) for name, pids in server.services.items()}
    command = generator_command(server.port, load, sent)
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the generator ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    time.sleep(_SETTLE_S)
    used = {name: cpu_s(list(pids)) - before[name] for name, pids in server.services.items()}
    return taken(load, sent.read_bytes(), used)


def taken(load: Load, sent: bytes, used_s: dict[str, float]) -> Taken:
    """The figures, from what the generator wrote and the seconds of CPU that each process used."""
    times = [(begun, answered) for _, begun, answered, _ in generator.RECORD.iter_unpack(sent)]
    if len(times) != load.messages:
        raise RuntimeError(f"{len(times)} of {load.messages} messages were taken")
    took_s = (max(answered for _, answered in times) - min(begun for begun, _ in times)) / 1e9
    return Taken(
        messages_per_s=round(load.messages / took_s, 1),
        cpu_ms_per_message={name: round(seconds * 1000 / load.messages, 4) for name, seconds in used_s.items()},
    )


def duel(mix: str, ours: Callable[[], Taken], stock: Callable[[], Taken], rounds: int) -> Duel:
    """`rounds` times both, the order changing: what drifts meets both alike."""
    pairs: list[dict[str, Taken]] = []
    for number in range(rounds):
        sides = [("ours", ours), ("stock", stock)]
        pairs.append({name: side() for name, side in (sides if number % 2 == 0 else reversed(sides))})
    return Duel(mix=mix, ours=[pair["ours"] for pair in pairs], stock=[pair["stock"] for pair in pairs])


def gate_duels(mixes: tuple[str, ...], rounds: int, seconds: float, below: Path) -> list[Duel]:
    """Gate and aiosmtpd, each sent about `seconds` of each mix a round."""
    with gate_alone(below) as gate, stock_aiosmtpd(below) as stock:
        return [duel(mix, sender(gate, mix, seconds, below), sender(stock, mix, seconds, below), rounds) for mix in mixes]


def sender(server: Running, mix: str, seconds: float, directory: Path) -> Callable[[], Taken]:
    """What sends `server` about `seconds` of this mix whenever it is called; sends a few now, to warm it up and see how fast it is."""
    rate = take(server, Load(mix, _WARM_UP), directory).messages_per_s
    load = Load(mix, max(_WARM_UP, round(rate * seconds)))
    return lambda: take(server, load, directory)
