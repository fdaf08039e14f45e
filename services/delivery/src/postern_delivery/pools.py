"""The connections of every route, made from the policy in force, and what is known about routes that do not answer.

A changed route gets a new pool; the old one closes when its transactions are done. A route whose next hops let us wait in vain is not
tried again for a while: what comes for it is deferred at once, instead of every job waiting for the same time-out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from postern_core.bus import Bus
from postern_core.bus.topology import KV_SECRETS
from postern_core.counters import CounterName, Counters
from postern_core.credentials import RouteSecret, route_secret_key
from postern_core.policy import NextHop, Route
from postern_delivery.routing import RoutingTable
from postern_smtp.client import ClientOptions, ConnectionFailed, RecipientOutcome, Transaction
from postern_smtp.connection_pool import ConnectionPool

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SLOW_FAILURE_S: Final = 2.0  # a failure that takes longer makes mail wait …
_AVOID_S: Final = 20.0  # … so the route is left alone for this long
_CLOSE_S: Final = 1.5


class RoutePools:
    """One pool for each route of `table()`."""

    def __init__(self, bus: Bus, table: Callable[[], RoutingTable], *, connect_timeout_s: float, idle_s: float) -> None:
        self._bus = bus
        self._table = table
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._pools: dict[str, tuple[Route, ConnectionPool]] = {}
        self._silent: dict[str, tuple[float, ConnectionFailed]] = {}  # route → until (loop time), and why
        self.counters = Counters()
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, route_name: str, transaction: Transaction) -> tuple[NextHop, tuple[RecipientOutcome, ...]]:
        """One transaction over a connection of the route. Raises ConnectionFailed, ConnectionLost (postern_smtp.client), and
        TransientError when the route's credentials cannot be read."""
        loop = asyncio.get_running_loop()
        until, failure = self._silent.get(route_name, (0.0, None))
        if failure is not None and loop.time() < until:
            raise failure.with_traceback(None)
        while True:
            route = self._table().routes.get(route_name)
            if route is None:
                raise ConnectionFailed("connect", f"the policy has no route {route_name}")
            pool = self._pool(route)
            started = loop.time()
            try:
                sent = await pool.send(transaction)
            except ConnectionFailed as failed:
                self.counters.add(CounterName.CONNECTION_FAILURES, route_name)
                if self._pools.get(route_name, (None, None))[1] is not pool:
                    continue  # the route was changed while we waited for a connection of its old pool
                if loop.time() - started > _SLOW_FAILURE_S and failed.reply is None:
                    self._silent[route_name] = (loop.time() + _AVOID_S, failed)
                raise
            self._silent.pop(route_name, None)
            return sent

    def connections(self) -> dict[str, float]:
        """How many stand, by route."""
        return {name: pool.in_use + pool.idle for name, (_, pool) in self._pools.items()}

    def max_recipients(self, route_name: str) -> int:
        """In one transaction of this route."""
        route = self._table().routes.get(route_name)
        return max(1, route.max_recipients) if route is not None else 100

    def try_again(self, route_name: str = "") -> None:
        """Forget that a route (or any, when ""), or one of its next hops, did not answer: somebody wants it tried now."""
        if route_name:
            self._silent.pop(route_name, None)
        else:
            self._silent.clear()
        for name, (_, pool) in self._pools.items():
            if route_name in ("", name):
                pool.try_again()

    def refresh(self) -> None:
        """After a change of policy: let go of pools whose route has changed or gone."""
        routes = self._table().routes
        for name, (route, pool) in list(self._pools.items()):
            if routes.get(name) != route:
                del self._pools[name]
                self._silent.pop(name, None)
                task = asyncio.get_running_loop().create_task(pool.close(), name=f"pools.close.{name}")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Say goodbye on idle connections, for a moment at most."""
        pools, self._pools = self._pools, {}
        closing = [asyncio.ensure_future(pool.close()) for _, pool in pools.values()] + list(self._closing)
        if closing:
            _, late = await asyncio.wait(closing, timeout=_CLOSE_S)
            for task in late:
                task.cancel()

    def _pool(self, route: Route) -> ConnectionPool:
        known = self._pools.get(route.name)
        if known is not None and known[0] == route:
            return known[1]

        async def options() -> ClientOptions:
            self.counters.add(CounterName.CONNECTION_ATTEMPTS, route.name)
            return await self._options(route)

        pool = ConnectionPool(route, options, idle_s=self._idle_s)
        self._pools[route.name] = (route, pool)
        return pool

    async def _options(self, route: Route) -> ClientOptions:
        return ClientOptions(
            helo_name=self._table().policy.hostname,
            use_helo=route.use_helo,
            tls=route.tls,
            credentials=await self._credentials(route) if route.auth else None,
            connect_timeout_s=self._connect_timeout_s,
            data_timeout_s=route.timeout_s,
        )

    async def _credentials(self, route: Route) -> tuple[str, str]:
        stored = await self._bus.kv_get(KV_SECRETS, route_secret_key(route.name))
        if stored is None:
            raise ConnectionFailed("auth", f"route {route.name} asks for credentials, and none are stored")
        try:
            secret = msgspec.json.decode(stored, type=RouteSecret)
        except msgspec.DecodeError as error:
            log.error("route.credentials_unreadable", route=route.name)
            raise ConnectionFailed("auth", f"the credentials of route {route.name} do not decode") from error
        return secret.user, secret.password
