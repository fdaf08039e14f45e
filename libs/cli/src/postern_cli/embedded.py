"""`postern up`: the whole stack as processes of this machine, until Ctrl-C.

Broker first, then streams and consumers, then everything else at once. `endpoints.json` appears when all of it is ready, names every process
as long as it runs, and is gone when it stops. It stops in the order in which mail flows; a second Ctrl-C stops it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from typing import Any, Final

from postern_cli.addresses import Addresses, reachable, split_address
from postern_cli.broker_binary import find_broker
from postern_cli.demo import RELAY_DOMAINS, USER, follow_smart_host
from postern_cli.layout import Layout
from postern_cli.log_watch import LogWatch
from postern_cli.programs import BROKER, SMART_HOST, STOP_ORDER, Programs, programs
from postern_cli.supervisor import EX_CONFIG, Ended, Supervisor, run_to_end
from postern_cli.welcome import welcome
from postern_core.broker.names import SERVICES
from postern_core.errors import ConfigurationError

_READY_S: Final = 60.0
_POLL_S: Final = 0.02
_ENDS_TO_GIVE_UP: Final = 3  # in a row, while the stack has not been ready yet


class EmbeddedStack:
    """One stack in one state directory. `before` are the addresses of the last start; `on_ready` is called once all of it is ready."""

    def __init__(
        self, layout: Layout, addresses: Addresses, *, workers: int, before: Addresses | None, on_ready: Callable[[], None]
    ) -> None:
        self._layout = layout
        self._addresses = addresses
        self._before = before
        self._on_ready = on_ready
        self._workers = workers
        self._ready = False
        self._hopeless: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._supervisor = Supervisor(on_change=self._write_endpoints, on_end=self._ended)

    async def run(self, stop: asyncio.Event) -> None:
        """Start, tell where everything is, run until `stop`, stop. ConfigurationError when it cannot start."""
        try:
            if await self._start_unless(stop):
                watch = LogWatch(map(self._layout.log_file, (*SERVICES, SMART_HOST, BROKER)), _show)
                showing = asyncio.create_task(watch.run(), name="log watch")
                await stop.wait()
                await _cancelled(showing)
        finally:
            self._ready = False
            self._layout.endpoints.unlink(missing_ok=True)
            for names in STOP_ORDER:
                await self._supervisor.stop(*names)

    def kill(self) -> None:
        """End every process at once: nothing that the gates accepted depends on an orderly end."""
        self._supervisor.kill()

    async def _start_unless(self, stop: asyncio.Event) -> bool:
        """False when `stop` came first."""
        starting = asyncio.create_task(self._start(), name="start")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            first: set[asyncio.Future[Any]] = {starting, stopped, self._hopeless}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
            elif self._hopeless.done():
                raise ConfigurationError(self._hopeless.result())
            return starting.done()
        finally:
            await _cancelled(starting)
            await _cancelled(stopped)

    async def _start(self) -> None:
        layout, addresses = self._layout, self._addresses
        started: Programs = await asyncio.to_thread(lambda: programs(layout, addresses, find_broker(), self._workers))
        certificate = asyncio.create_task(run_to_end(started.certificate), name="certificate")
        try:
            self._supervisor.start(started.broker)
            await self._within(self._wait_for_port(addresses.nats), "the broker")
            await self._within(run_to_end(started.provisioner), "the broker's storage")
            await certificate
        finally:
            await _cancelled(certificate)
        for program in started.others:
            self._supervisor.start(program)
        await self._within(self._wait_ready(), "the stack")
        if self._before is not None:
            token = layout.admin_token.read_text(encoding="utf-8").strip()
            api = reachable(addresses.api)
            await asyncio.to_thread(follow_smart_host, api, token, self._before.smart_host, addresses.smart_host)
        self._ready = True
        self._on_ready()
        self._write_endpoints()
        _show(welcome(layout, addresses))

    async def _within(self, work: Coroutine[Any, Any, None], what: str) -> None:
        try:
            async with asyncio.timeout(_READY_S):
                await work
        except TimeoutError as error:
            late = [service for service in SERVICES if not self._layout.ready_file(service).exists()]
            names = f"; not ready: {', '.join(late)}" if 0 < len(late) < len(SERVICES) else ""
            raise ConfigurationError(
                f"{what} did not become ready within {_READY_S:g} s{names}; see {self._layout.logs}"
            ) from error

    async def _wait_for_port(self, address: str) -> None:
        host, port = split_address(reachable(address))
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(_POLL_S)
            else:
                writer.close()
                return

    async def _wait_ready(self) -> None:
        await self._wait_for_port(self._addresses.smart_host)
        while not all(self._layout.ready_file(service).exists() for service in SERVICES if service != "api"):
            await asyncio.sleep(_POLL_S)
        # the api answers for itself, and at once
        while not await asyncio.to_thread(_answers, f"http://{reachable(self._addresses.api)}/readyz"):
            await asyncio.sleep(_POLL_S)

    def _ended(self, end: Ended) -> None:
        if self._ready or self._hopeless.done():
            return  # it was well once: go on trying, the supervisor says so in its log
        if end.code == EX_CONFIG or end.in_a_row >= _ENDS_TO_GIVE_UP:
            self._hopeless.set_result(end.told)

    def _write_endpoints(self) -> None:
        if not self._ready:
            return
        addresses, layout = self._addresses, self._layout
        endpoints = {
            "anon": reachable(addresses.anon),
            "auth_starttls": reachable(addresses.auth_starttls),
            "auth_tls": reachable(addresses.auth_tls),
            "smart_host": reachable(addresses.smart_host),
            "api": f"http://{reachable(addresses.api)}",
            "nats": f"nats://{reachable(addresses.nats)}",
            "smart_host_mail": str(layout.smart_host_mail),
            "admin_token_file": str(layout.admin_token),
            "relay_domains": list(RELAY_DOMAINS),
            "demo_user": {"name": USER, "password": layout.demo_password.read_text(encoding="utf-8").strip()},
            "processes": self._supervisor.pids,
        }
        fresh = layout.endpoints.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(endpoints, indent=2), encoding="utf-8")
        fresh.replace(layout.endpoints)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  (our own address)
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _show(text: str) -> None:
    print(text, flush=True)


async def run_embedded(
    layout: Layout, addresses: Addresses, *, workers: int, before: Addresses | None, on_ready: Callable[[], None]
) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; a second one ends everything at once."""
    stop = asyncio.Event()
    stack = EmbeddedStack(layout, addresses, workers=workers, before=before, on_ready=on_ready)

    def on_signal() -> None:
        if stop.is_set():
            stack.kill()
            return
        with contextlib.suppress(OSError):  # the terminal may be gone
            _show("\nStopping; once more to stop at once.")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    await stack.run(stop)
