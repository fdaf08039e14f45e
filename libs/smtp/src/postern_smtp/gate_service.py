"""What both gates do as a service: watch the policy, listen, and at the end let every message in hand be finished.

Needs the bus to accept mail and the api for nothing: without the bus it answers 451 4.3.0, without a policy 451 4.3.5, and it goes on by
itself when they are there.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from postern_core.bus import BodyStore, Bus, EventSink, NoticeSink, PolicyWatch, SessionLogSink, StatusReporter
from postern_core.errors import ConfigurationError
from postern_core.heap import keep_large_blocks
from postern_core.policy import GatePolicy, GateState, Section
from postern_core.service import run_service
from postern_core.workers import command_of, run_supervisor, stop_with_parent
from postern_smtp.acceptance import Acceptance
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.gate_settings import GateSettings
from postern_smtp.listener import Listener
from postern_smtp.live_sessions import LiveSessions
from postern_smtp.ports import ListenAddress
from postern_smtp.tls import ServerTls

# of the drain time: for the last events and the status, after the last session
_FAREWELL_S: Final = 2.0
_POLICY_S: Final = 3.0  # for the first look at the policy, before the ports of the environment are opened


@dataclass(frozen=True, slots=True, kw_only=True)
class GateService:
    """One gate, ready to be served."""

    name: str  # on the bus
    settings: GateSettings
    profile: GateProfile
    compile_rules: Callable[[GatePolicy], GateRules]  # ValueError for a policy that it cannot use
    ports: Sequence[tuple[ListenAddress, bool]]  # unless the policy has others; true: TLS from the first octet
    tls_ports: ssl.SSLContext | None = None  # None: TLS begins by STARTTLS here, and at no port at once
    tls: ServerTls | None = None  # whose context the profile has
    attach: Callable[[Listener], None] = lambda _: None  # called with the listener before its ports open
    background: Sequence[Callable[[asyncio.Event], Awaitable[None]]] = field(default=())  # run until their event is set


def run_gate(module: str, settings: GateSettings, gate_of: Callable[[Bus], GateService]) -> int:
    """The gate's program: serve until a signal, in this process, or in several that listen at the same ports. Returns the exit code."""
    name = module.removeprefix("postern_").replace("_", "-")
    if settings.workers > 1:
        return run_supervisor(name, settings, command_of(module), settings.workers_share())
    return run_service(name, settings, lambda bus, stop: serve_gate(bus, stop, gate_of(bus)))


async def serve_gate(
    bus: Bus, stop: asyncio.Event, gate: GateService, *, on_open: Callable[[Listener], None] = lambda _: None
) -> None:
    """Serve until `stop`, then drain. `on_open` is told of the listener once its ports are open.

    ConfigurationError when a port cannot be opened.
    """
    settings = gate.settings
    if settings.supervised:
        stop_with_parent(stop)
    events, notices = EventSink(bus, gate.name), NoticeSink(bus, gate.name, settings.instance)
    session_log = SessionLogSink(bus, gate.name, settings.instance, gate.profile.gate)
    bodies = BodyStore(bus, gate.name, settings.inline_limit_bytes)

    def compile_rules(section: GatePolicy) -> GateRules:
        rules = gate.compile_rules(section)
        gate.profile.under(rules.listener)  # ValueError when it cannot be
        if gate.tls_ports is None and any(bind.tls for bind in rules.listener.binds.binds):
            raise ValueError("TLS from the first octet is for ports of the authenticated gate")
        return rules

    def on_change(rules: GateRules) -> None:
        if gate.tls is not None:
            gate.tls.follow(rules.listener.tls, rules.hostname)
        listener.follow(rules.listener.state.state)
        listener.ports.want(rules.listener.binds.binds)
        status.poke()

    policy = PolicyWatch(bus, Section.GATES, GatePolicy, compile_rules, state_dir=settings.state_dir, on_change=on_change)
    acceptance = Acceptance(bus, bodies, events, gate.profile.gate)
    listener = Listener(gate.profile, lambda: policy.current, acceptance, notices.tell, session_log.tell)
    sessions = LiveSessions(bus, gate.name, settings.instance, lambda: listener.open_connections)

    gate.attach(listener)

    def probe() -> dict[str, object]:
        return {
            "ready": policy.current is not None and not listener.is_draining,
            "revision": policy.revision,
            "policy_error": policy.error,
            "in_flight": listener.connections,
            "listens": () if listener.is_draining else listener.ports.told,
            "unbound": () if listener.is_draining else listener.ports.unbound,
            # a gate that an administrator paused is ready all the same: a supervisor must not restart it
            "detail": "" if listener.state is GateState.OPEN else listener.state.value,
            "counters": listener.counted(),
            "certificates": gate.tls.status(datetime.now(UTC)) if gate.tls is not None else (),
        }

    status = StatusReporter(bus, gate.name, settings.instance, probe, ready_file=settings.ready_file)
    listener.ports.on_change = status.poke
    works = {
        "ports": listener.ports.run,
        "events": events.run,
        "notices": notices.run,
        "session-log": session_log.run,
        "sessions": sessions.run,
        "status": status.run,
        "heap": keep_large_blocks,
    }
    if gate.tls is not None:
        gate.tls.notice = notices.tell
        works["certificates"] = gate.tls.watch
    drained = asyncio.Event()
    failure: ConfigurationError | None = None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(policy.run(drained), name="policy")
        try:
            # where to listen is the policy's to say, if it can be had
            await _either(policy.asked, stop, within_s=_POLICY_S)
            await listener.ports.start(gate.ports, gate.tls_ports, is_shared=settings.supervised)
        except ConfigurationError as error:
            failure = error
            drained.set()
        else:
            on_open(listener)
            for name, run in works.items():
                tasks.create_task(run(drained), name=name)
            for background in gate.background:
                tasks.create_task(_run(background, drained), name="background")
            await stop.wait()
            status.poke()
            await listener.drain(max(settings.drain_s - _FAREWELL_S, 0.5))
            drained.set()
    if failure is not None:
        raise failure


async def _either(first: asyncio.Event, second: asyncio.Event, *, within_s: float) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _run(work: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
    await work(stop)
