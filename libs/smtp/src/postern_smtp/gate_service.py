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
from postern_core.heap import keep_large_blocks
from postern_core.policy import GatePolicy, GateState, Section
from postern_core.service import run_service
from postern_core.workers import command_of, run_supervisor, stop_with_parent
from postern_smtp.acceptance import Acceptance
from postern_smtp.gate import GateProfile, GateRules
from postern_smtp.gate_settings import GateSettings
from postern_smtp.listener import ListenAddress, Listener
from postern_smtp.live_sessions import LiveSessions
from postern_smtp.tls import ServerTls

# of the drain time: for the last events and the status, after the last session
_FAREWELL_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateService:
    """One gate, ready to be served."""

    name: str  # on the bus
    settings: GateSettings
    profile: GateProfile
    compile_rules: Callable[[GatePolicy], GateRules]  # ValueError for a policy that it cannot use
    ports: Sequence[tuple[ListenAddress, ssl.SSLContext | None]]  # with a context: TLS from the first octet
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
        return rules

    def on_change(rules: GateRules) -> None:
        if gate.tls is not None:
            gate.tls.follow(rules.listener.tls, rules.hostname)
        listener.follow(rules.listener.state.state)
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
            "listens": () if listener.is_draining else listener.told_addresses,
            # a gate that an administrator paused is ready all the same: a supervisor must not restart it
            "detail": "" if listener.state is GateState.OPEN else listener.state.value,
            "certificates": gate.tls.status(datetime.now(UTC)) if gate.tls is not None else (),
        }

    status = StatusReporter(bus, gate.name, settings.instance, probe, ready_file=settings.ready_file)
    for address, implicit_tls in gate.ports:
        await listener.listen(address, implicit_tls=implicit_tls, is_shared=settings.supervised)
    on_open(listener)

    drained = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(policy.run(drained), name="policy")
        tasks.create_task(events.run(drained), name="events")
        tasks.create_task(notices.run(drained), name="notices")
        tasks.create_task(session_log.run(drained), name="session-log")
        tasks.create_task(sessions.run(drained), name="sessions")
        tasks.create_task(status.run(drained), name="status")
        tasks.create_task(keep_large_blocks(drained), name="heap")
        if gate.tls is not None:
            gate.tls.notice = notices.tell
            tasks.create_task(gate.tls.watch(drained), name="certificates")
        for run in gate.background:
            tasks.create_task(_run(run, drained), name="background")
        await stop.wait()
        status.poke()
        await listener.drain(max(settings.drain_s - _FAREWELL_S, 0.5))
        drained.set()


async def _run(work: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
    await work(stop)
